"""One file per user's job; `cli.py` is the `tickline` command."""
