"""History of nightly runs, and retention of the home folder's files."""
