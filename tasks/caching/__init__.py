"""Content keys, cached results, repair and refresh."""
