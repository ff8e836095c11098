"""What an instrument sees beyond ticks: its Level-2 book, exogenous series."""
