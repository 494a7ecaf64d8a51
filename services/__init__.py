"""The services of tutti: each an independent process that talks to the others only through Kafka topics."""
