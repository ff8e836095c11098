"""The benchmark of the engines, and the gate that judges them."""
