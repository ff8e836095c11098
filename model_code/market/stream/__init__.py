"""One instrument-day in chunks: what is carried from one chunk to the next."""
