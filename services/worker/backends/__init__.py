"""How a worker talks to its node: one file a kind of endpoint, all behind `base.Backend`."""
