"""Deciding: what follows from what comes in, as functions of a round: what changes a job's history goes by the round's moves. Pure."""
