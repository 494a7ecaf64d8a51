"""What two or more services use: contracts, topics, errors, retry, clock, settings, telemetry, the log port, the service shell."""
