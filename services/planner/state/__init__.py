"""What a planner knows of one home: its book, and the parts of it. No I/O, no clock."""
