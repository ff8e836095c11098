"""The live path's connections to other systems."""
