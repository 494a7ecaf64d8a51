"""Sealing: values of records encrypted on their way to Kafka and opened on their way back, below every service (decision 0054)."""
