"""One job: its pattern's run, its state as the fold of its events, its limits and the ids that follow from it. No I/O."""
