"""Procedures that survive the death of the command that runs them: steps, the engine, runs and their record."""
