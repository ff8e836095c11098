"""What the last nights did, and what the home folder still needs."""
