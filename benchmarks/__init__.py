"""Measurements beside other tools: `script/bench`. Not part of the package that is installed."""
