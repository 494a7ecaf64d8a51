"""The log on a real Kafka cluster, by aiokafka."""
