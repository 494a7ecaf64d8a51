"""Placement: which node gets a step, by what its places, its models and its speed are known to be. Pure, but for `facts`, which reads."""
