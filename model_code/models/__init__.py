"""Models: the network, its dropout, gradient boosting."""
