"""History of nightly runs, and retention of files."""
