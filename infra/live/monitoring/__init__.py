"""What a service shows of itself: metrics, a page, a terminal."""
