"""The live path on Kafka: consumer, producer, positions, service."""
