"""Which job records are read next, and what becomes of those that cannot be."""
