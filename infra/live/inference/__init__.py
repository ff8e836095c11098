"""Triton as the model of the live service, and the engine that stands in for it."""
