"""What leaves a planner besides events."""
