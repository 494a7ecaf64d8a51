"""Stand-ins for things that a test machine does not have. Each says that it is simulated wherever its answers are shown."""
