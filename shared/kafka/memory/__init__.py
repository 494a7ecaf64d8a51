"""The log in one process under a virtual clock: Kafka's stand-in for simulations and tests."""
