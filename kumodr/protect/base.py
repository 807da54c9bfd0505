"""Take a base: every component captured in order and committed together as one recovery point."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from kumodr import errors
from kumodr.components.protocol import Component
from kumodr.source import Capture
from kumodr.vault.backup import Session
from kumodr.vault.facts import Point, StreamJoin

ORDER = ("spool", "logs", "ledger", "config", "redis", "prometheus", "images")
"""The spool before the logs (design §4): what left the spool before its snapshot has had time to reach the log."""


@dataclass(frozen=True)
class Base:
    """The point that was committed, and why any component is missing from it."""

    point: Point
    failures: Mapping[str, errors.KumodrError]


def in_order(names: Iterable[str]) -> tuple[str, ...]:
    """Given component names, return them in the order in which they must be captured."""
    return tuple(sorted(set(names), key=lambda name: ORDER.index(name) if name in ORDER else len(ORDER)))


def take_base(
    session: Session,
    components: Sequence[Component],
    join: Callable[[], StreamJoin | None] = lambda: None,
    spool: Callable[[Capture], Capture] = lambda capture: capture,
) -> Base:
    """Given an open session and components in order, store each and commit one point.

    `join` is called when the spool is stored and says where a stream goes on from it; without the spool it is not.
    `spool` is given the spool's capture and returns the one that is stored.

    A component that cannot be captured is left out and recorded in the point with its sentence: Redis being down
    must not cost the spool its copy. Raise the first failure where no component could be stored, and at once what
    concerns the vault itself.
    """
    failures: dict[str, errors.KumodrError] = {}
    stream: StreamJoin | None = None
    for component in components:
        try:
            with component.capture() as capture:
                session.store(component.name, spool(capture) if component.name == "spool" else capture)
            if component.name == "spool":
                stream = join()
        except _OF_THE_COMPONENT as error:
            failures[component.name] = error
            session.fail(component.name, str(error))
    if failures and len(failures) == len(components):
        raise next(iter(failures.values()))
    return Base(session.commit(stream), failures)


_OF_THE_COMPONENT = (
    errors.ComponentUnavailable,
    errors.ComponentDamaged,
    errors.FileUnreadable,
    errors.LogUnreadable,
    errors.SpoolMissing,
    errors.SpoolUnreadable,
    errors.SpoolChanging,
    errors.SpoolDamaged,
    errors.ToolMissing,
)
