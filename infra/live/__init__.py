"""The live path's connections to other systems: Kafka and Redis."""
