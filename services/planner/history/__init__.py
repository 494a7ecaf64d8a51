"""The planner's log: appended by one writer, taken over, replayed, kept short."""
