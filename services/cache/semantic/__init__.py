"""Answers to questions that mean the same: embedders, vectors by partition, the threshold, and what of it all a lookup is told."""
