"""Disaster recovery for KumoMTA."""

__version__ = "0.1.0"
