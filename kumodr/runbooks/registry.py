"""Every runbook by name, made again from plain values: a run that is resumed needs the same steps as when it began."""

from collections.abc import Callable, Mapping
from typing import Any

from kumodr import errors
from kumodr.runbooks.step import Runbook

WRITTEN = "written"
"""Parameters of a runbook from a file hold its text under this name."""


def runbook_of(name: str, parameters: Mapping[str, Any]) -> Runbook:
    """Given a runbook's name and the parameters of a run, return it. Raise RunChanged where this version has none."""
    if WRITTEN in parameters:
        from kumodr.runbooks.written.steps import runbook_of_document

        return runbook_of_document(parameters[WRITTEN], parameters)
    make = builders().get(name)
    if make is None:
        raise errors.RunChanged(f"this version of kumodr has no runbook {name!r}")
    return make(parameters)


def builders() -> dict[str, Callable[[Mapping[str, Any]], Runbook]]:
    """Return the makers of kumodr's own runbooks, by name."""
    from kumodr.recover.data.runbook import NAME as DATA
    from kumodr.recover.data.runbook import recover_data
    from kumodr.recover.system.runbook import NAME as SYSTEM
    from kumodr.recover.system.runbook import recover_system

    return {SYSTEM: recover_system, DATA: recover_data}
