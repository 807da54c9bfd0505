"""A complete system failure: from whatever is left to a mail server that is proved to work."""
