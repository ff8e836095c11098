"""Evidence of a candidate against the champion: outcomes, counts and sequential tests."""
