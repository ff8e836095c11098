"""Market data: one tick schema, readers, the simulated market, data quality."""
