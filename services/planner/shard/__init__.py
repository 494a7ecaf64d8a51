"""One partition number and its owner: rounds, effects, commits, fences."""
