"""Who waits here for what, and what comes for them on `replies`."""
