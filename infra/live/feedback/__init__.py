"""Labels, judges and logs live decisions in a process beside the service."""
