"""Clients of the model server: ask, load, prove, measure."""
