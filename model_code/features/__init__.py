"""Features, labels, windows and the time-ordered split."""
