"""Data that is damaged while its host is not: found out without touching it, salvaged, and put back proved."""
