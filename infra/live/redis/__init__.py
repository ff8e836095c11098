"""Redis: each instrument's newest decision and quote."""
