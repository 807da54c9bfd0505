"""Looking around: which of the ways to run KumoMTA this machine has, and what is to be protected there."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kumodr import errors
from kumodr.discover import risks
from kumodr.discover.assemble import Discovered, Given, assemble
from kumodr.discover.compose import look_at_compose
from kumodr.discover.compose_files import has_project, project_of
from kumodr.discover.policy import read_policy
from kumodr.discover.site import Site
from kumodr.discover.systemd import look_at_systemd
from kumodr.discover.textfile import there
from kumodr.discover.usual import look_at_usual_places
from kumodr.runtimes.commands import Runner, run


@dataclass(frozen=True)
class Wanted:
    """How to look: `way` is "compose", "systemd" or "paths", None: the first of them that is there."""

    directory: Path
    way: str | None = None
    files: Sequence[Path] = ()
    profiles: Sequence[str] = ()
    project: str | None = None
    service: str | None = None


def discover(
    wanted: Wanted,
    given: Given,
    *,
    may_read: Callable[[str], bool],
    say: Callable[[str], None],
    environment: Mapping[str, str],
    runner: Runner = run,
) -> Discovered:
    """Given how to look, what was said, and whether the policy at a path may be read, return what there is to protect.

    Raise a named error where the way that was asked for is not there, or Docker is in the way.
    """
    site = look(wanted, say=say, environment=environment, runner=runner)
    policy = None
    unread = (
        f"policy: {site.policy} is not read; with --read-policy spools, logs, keys and risks are found in it, as text"
    )
    if not site.runtime and not there(site.locate(site.policy).path):
        unread = f"policy: there is none at {site.policy}, so spools, logs and keys were not looked for in it"
    elif may_read(site.policy):
        policy = read_policy(site.policy, lambda path: site.locate(path).path, site.environment)
        unread = ""
    found = assemble(site, policy, given)
    http: str | None = found.values.get("kumod", {}).get("http")
    of_the_host = (risks.not_alive(http) if http else None, risks.vault_inside(given.vault), risks.clock_adrift())
    return Discovered(
        source=found.source,
        values=found.values,
        uncovered=(*found.uncovered, *((unread,) if unread else ())),
        risks=(*found.risks, *(each for each in of_the_host if each is not None)),
    )


def look(wanted: Wanted, *, say: Callable[[str], None], environment: Mapping[str, str], runner: Runner = run) -> Site:
    """Given how to look, return the site. Without a way: a compose project here, units of systemd, the usual places."""
    missing: errors.ServiceMissing | None = None
    composed = bool(wanted.files) or wanted.way == "compose"
    if composed or (wanted.way is None and (has_project(wanted.directory) or environment.get("COMPOSE_FILE"))):
        project = project_of(wanted.directory, wanted.files, wanted.profiles, wanted.project, environment)
        try:
            return look_at_compose(project, service=wanted.service, environment=environment, say=say, runner=runner)
        except errors.ServiceMissing as error:
            if composed or wanted.service:
                raise
            missing = error
    if wanted.way in (None, "systemd"):
        site = look_at_systemd(service=wanted.service, runner=runner)
        if site is not None:
            return site
        if wanted.way == "systemd":
            raise errors.ServiceMissing("systemd has no unit kumomta.service", remedy="name KumoMTA's with --service")
    if missing is not None:
        raise missing
    return look_at_usual_places()
