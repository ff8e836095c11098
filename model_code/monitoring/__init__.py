"""What nights did, and which files may be deleted."""
