"""Whether two questions say the same, by their words alone: what a semantic cache asks besides how similar they are."""
