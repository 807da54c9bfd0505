"""KumoMTA as it is asked and used from outside: its HTTP interface, its queues, a message through it."""
