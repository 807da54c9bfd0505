"""Bring out of a damaged spool every message that can be read, and fill the rest from a copy."""
