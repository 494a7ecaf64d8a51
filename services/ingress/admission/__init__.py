"""Who may submit what, how much and when: refusals before anything is queued."""
