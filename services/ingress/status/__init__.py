"""What callers may learn of a job: its events, folded into a status, and who follows them."""
