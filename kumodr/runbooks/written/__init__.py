"""Runbooks that operators write themselves, in YAML."""
