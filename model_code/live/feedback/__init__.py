"""What became of the live decisions: labels, quality and drift, and when to retrain."""
