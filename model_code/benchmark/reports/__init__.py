"""Reports of a benchmark and of a walk: tables, pages, pictures."""
