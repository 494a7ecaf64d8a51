"""tutti's own jobs."""
