"""From what was found and what was said on the command line to the values of a plan, its gaps and its risks."""

import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from kumodr import errors
from kumodr.components.protocol import Finding
from kumodr.discover import risks
from kumodr.discover.compose_files import outermost
from kumodr.discover.policy import PolicySaid
from kumodr.discover.site import LOGS, SPOOL, Site
from kumodr.spool.kind import kind_of


@dataclass(frozen=True)
class Given:
    """What was said on the command line. It counts before what is found."""

    site: str
    vault: str
    state: str
    spool: str | None = None
    logs: Sequence[str] = ()
    config: Sequence[str] = ()
    redis: str | None = None
    prometheus: str | None = None
    prometheus_url: str | None = None
    http: str | None = None


@dataclass(frozen=True)
class Discovered:
    """The values of a plan; what is not covered by it, each with what would cover it; what is risky at this site."""

    source: str
    values: Mapping[str, Any]
    uncovered: tuple[str, ...] = ()
    risks: tuple[Finding, ...] = ()


@dataclass
class _Draft:
    components: dict[str, Any] = field(default_factory=dict[str, Any])
    uncovered: list[str] = field(default_factory=list[str])
    risks: list[Finding | None] = field(default_factory=list[Finding | None])


def assemble(site: Site, policy: PolicySaid | None, given: Given) -> Discovered:
    """Given a site, its policy where that was read, and what was said, return the plan's values.

    Raise SpoolMissing where a spool was named, or nothing else is known of the site, and none is there.
    """
    draft = _Draft(uncovered=list(site.uncovered), risks=list(site.risks))
    if policy is not None:
        draft.uncovered += [f"policy: {each}" for each in policy.unclear]
        draft.risks += [risks.segments_open_long(policy.unsegmented), risks.deferred(policy.deferred)]
    _spool(site, policy, given, draft)
    _logs(site, policy, given, draft)
    _redis(site, policy, given, draft)
    _prometheus(site, given, draft)
    _config(site, policy, given, draft)
    if site.runtime.get("kind") == "compose":
        draft.components["images"] = {"archives": False}
    http = _http(site, policy, given, draft)
    values = {
        "version": 1,
        "site": given.site,
        "vault": {"url": given.vault},
        "state": given.state,
        "components": {name: draft.components[name] for name in _ORDER if name in draft.components},
    }
    if http:
        values["kumod"] = {"http": http}
    if site.runtime:
        values["runtime"] = dict(site.runtime)
    found = dict.fromkeys(each for each in draft.risks if each is not None)
    return Discovered(site.source, values, tuple(dict.fromkeys(draft.uncovered)), tuple(found))


_ORDER = ("spool", "logs", "config", "redis", "prometheus", "images")


def _spool(site: Site, policy: PolicySaid | None, given: Given, draft: _Draft) -> None:
    if given.spool or not (site.runtime or (policy and policy.spools)):
        root = Path(given.spool or SPOOL).absolute()
        if not _is_folder(root / "meta") or not _is_folder(root / "data"):
            raise errors.SpoolMissing(
                f"{root} holds no spool (no meta and data in it)",
                remedy="give --spool DIR, the directory with meta and data, or run this where the compose file is",
            )
        places, kind = [root / "meta", root / "data"], None
    else:
        said = policy.spools if policy else {}
        both = [said[name] for name in ("meta", "data") if name in said]
        if policy is not None and policy.files and len(both) < 2:
            text = (
                f"spool: where it is does not follow from the policy's text; {SPOOL} is taken: correct it if it is not"
            )
            draft.uncovered.append(text)
        inside = [each.path for each in both] if len(both) == 2 else [f"{SPOOL}/meta", f"{SPOOL}/data"]
        kind = both[0].kind if len({each.kind for each in both}) == 1 and len(both) == 2 else None
        located = [site.locate(each) for each in inside]
        draft.risks += [each.risk for each in located]
        places = [each.path for each in located if each.path is not None]
        if len(places) < 2:
            draft.uncovered.append(f"spool: {' and '.join(inside)} cannot be reached from this host; see the risks")
            return
    draft.components["spool"] = {"meta": str(places[0]), "data": str(places[1])} | ({"kind": kind} if kind else {})
    for place in places:
        try:
            draft.risks.append(risks.spool_closed(place, kind_of(place, kind or "auto")))
        except errors.SpoolUnreadable as error:
            draft.risks.append(Finding("bad", error.what, "run kumodr as root, or beside the mail server as a sidecar"))
        except errors.SpoolMissing as error:
            draft.risks.append(Finding("warning", error.what, "start KumoMTA once, or correct the spool's paths"))


def _logs(site: Site, policy: PolicySaid | None, given: Given, draft: _Draft) -> None:
    found = [Path(each).absolute() for each in given.logs]
    if not found:
        inside = policy.logs if policy and policy.logs else [LOGS]
        for each in inside:
            place = site.locate(each)
            if place.path is None:
                draft.risks.append(place.risk)
            elif _is_folder(place.path) or (policy and policy.logs) or site.runtime:
                found.append(place.path)
    if found:
        draft.components["logs"] = {"directories": [str(each) for each in found]}
    else:
        draft.uncovered.append("delivery logs: give --logs DIR, for every directory that the policy names")


def _config(site: Site, policy: PolicySaid | None, given: Given, draft: _Draft) -> None:
    spool = draft.components.get("spool", {})
    live = [Path(spool[half]) for half in ("meta", "data") if half in spool]
    live += [Path(each) for each in draft.components.get("logs", {}).get("directories", [])]
    live += [server.data for server in (site.redis, site.prometheus) if server and server.data]
    found, uncovered = site.configuration(live)
    draft.uncovered += [f"{each}: not covered; --config PATH stores it as configuration" for each in uncovered]
    named = [posixpath.dirname(site.policy), *(policy.named if policy else [])]
    for inside in named if site.runtime else []:
        place = site.locate(inside).path
        if place is None:
            text = f"{inside}, which the mail server uses, is part of its image: it is kept where that is kept"
            draft.uncovered.append(f"configuration: {text}")
        elif _there(place) and not any(each == place or place.is_relative_to(each) for each in found):
            found.append(place)
    found = outermost([*(Path(each).absolute() for each in given.config), *found])
    if found:
        draft.components["config"] = {"paths": [str(each) for each in found]}
    else:
        text = "configuration: give --config PATH, for policy, keys and everything else a new host needs"
        draft.uncovered.append(text)


def _redis(site: Site, policy: PolicySaid | None, given: Given, draft: _Draft) -> None:
    if given.redis:
        draft.components["redis"] = {"url": given.redis}
        return
    if site.redis is None:
        named = [urlsplit(each).hostname or "" for each in (policy.redis if policy else [])]
        where = f"the policy uses one at {', '.join(named)}: " if named else ""
        draft.uncovered.append(f"redis: {where}give --redis redis://HOST:PORT where throttles are kept in Redis")
        return
    data = {"data": str(site.redis.data)} if site.redis.data else {}
    if site.redis.url is not None:
        draft.components["redis"] = {"url": site.redis.url} | data
    else:
        draft.components["redis"] = {"url": site.redis.inside, "through": "exec"}
    if site.redis.secret:
        text = "redis: it asks for a password; put that into a file, and its path into components.redis.password_file"
        draft.uncovered.append(text)


def _prometheus(site: Site, given: Given, draft: _Draft) -> None:
    server = site.prometheus
    data = Path(given.prometheus).absolute() if given.prometheus else server.data if server else None
    if data is None and (server is None or site.runtime.get("kind") != "compose"):
        if server is None:
            draft.uncovered.append("prometheus: give --prometheus DIR, its data folder, and --prometheus-url")
        return
    url = given.prometheus_url or (server.url if server else None)
    # Without a folder here its blocks are asked of the container.
    draft.components["prometheus"] = ({"data": str(data)} if data else {}) | ({"url": url} if url else {})


def _http(site: Site, policy: PolicySaid | None, given: Given, draft: _Draft) -> str | None:
    if given.http:
        return given.http
    if not site.runtime and not (policy and policy.http):
        text = "liveness: give --http http://127.0.0.1:8000, so that `kumodr check` can ask the mail server"
        draft.uncovered.append(text)
        return None
    reason = ""
    for address in policy.http if policy and policy.http else ["0.0.0.0:8000"]:
        url, reason = site.reach(address)
        if url:
            return url
    draft.risks.append(Finding("warning", "the liveness of KumoMTA cannot be asked from this host", reason))
    return None


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:
        return False


def _there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:
        return False
