"""What puts kumodr to work on a machine: units of systemd, or a sidecar of a compose project."""
