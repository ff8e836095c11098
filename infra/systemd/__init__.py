"""systemd units of the stack, and the services as they run under a service manager."""
