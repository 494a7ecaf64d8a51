"""Deciding: what follows from what comes in, as functions of a round: each changes its book only by the round's moves. Pure."""
