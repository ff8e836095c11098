"""Kafka: clients, messages in and out, recorded days as a feed."""
