"""Clients of the model server: predictions, model loading, verification, load tests."""
