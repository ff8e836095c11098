"""Engines measured side by side, and the gate that judges them."""
