"""What makes losing mail likelier than it need be. Each predicate gives a finding with its remedy, or None.

`kumodr init` asks all that apply to what it found; `kumodr check` asks those that a plan alone can answer.
"""

import ctypes
import os
import stat
from collections.abc import Callable, Sequence
from pathlib import Path

from kumodr import errors
from kumodr.components.protocol import Finding
from kumodr.mailserver.http import MailServer
from kumodr.plan.model import Plan

_TIME_ERROR = 5
_SIZE_OF_TIMEX = 256
_REMOTE = ("nfs", "nfs4", "cifs", "smb3", "ceph", "glusterfs", "9p", "lustre", "beegfs", "afs", "davfs")


def segments_open_long(places: Sequence[str]) -> Finding | None:
    """Given the places in the policy where logs have no max_segment_duration, say what that costs (facts §13.11)."""
    if not places:
        return None
    text = f"max_segment_duration is not set ({', '.join(places)}): a crash can lose hours of the delivery log's end"
    return Finding("warning", text, "set max_segment_duration = '10s' in configure_local_logs")


def deferred(places: Sequence[str]) -> Finding | None:
    """Given the places in the policy where deferred_spool is on, say what that costs (facts §1.5)."""
    if not places:
        return None
    text = f"deferred_spool is on in {', '.join(places)}: mail is acknowledged before it is anywhere but in memory"
    return Finding("warning", text, "take deferred_spool out of the policy; what it defers nobody can copy")


def spool_closed(directory: Path, kind: str) -> Finding | None:
    """Given a directory of a RocksDB spool, say whether KumoMTA, started as root, would make a new database over it.

    It checks with real user 0, without the right to pass modes by, and the group of its user (facts §2.4, §13.10).
    """
    if kind != "rocksdb":
        return None
    for each in (directory, directory.parent):
        try:
            mode = each.stat().st_mode
        except OSError:
            continue
        if mode & 0o050 != 0o050 and mode & 0o005 != 0o005:
            text = (
                f"{each} has mode {stat.S_IMODE(mode):04o}: KumoMTA, started as root, would see no spool and begin anew"
            )
            return Finding("bad", text, f"chmod 2770 {each}, with the group of KumoMTA's user")
    return None


def redis_forgets(save: str | None, append_only: bool, *, keeps_files: bool) -> Finding | None:
    """Given Redis's settings (`save` None: its default) and whether its folder outlives it, say what it forgets."""
    if save == "" and not append_only:
        text = "Redis keeps nothing over a restart: throttles begin at zero"
        return Finding("warning", text, "set `appendonly yes` or `save` in its configuration")
    if not keeps_files:
        text = "Redis has no volume for its data: a new container begins empty"
        return Finding("warning", text, "mount a volume at /data in its service")
    return None


def admin_closed(allowed: bool) -> Finding | None:
    """Given whether Prometheus's admin API is on, say what is lost without it."""
    if allowed:
        return None
    text = "Prometheus's admin API is off, so its newest hours are not stored"
    return Finding("warning", text, "start it with --web.enable-admin-api")


def vault_inside(url: str, mounts: Path = Path("/proc/self/mountinfo")) -> Finding | None:
    """Given the vault's address, say whether it lies on a disk of this host: that is lost with the host."""
    if "://" in url:
        return None
    kind = _file_system(Path(url), mounts)
    if kind is None or kind in _REMOTE or kind.startswith("fuse."):
        return None
    text = f"the vault {url} is on this host: who loses the host loses both"
    return Finding(
        "warning", text, "use a vault on another machine or in an object store, or copy it: `kumodr vault copy`"
    )


def not_alive(http: str | None) -> Finding | None:
    """Given the address of KumoMTA's HTTP listener, ask it; return what is wrong, None where it says OK."""
    if http is None:
        text = "the plan does not say how KumoMTA is reached"
        return Finding("warning", text, "set kumod.http in kumodr.yaml")
    try:
        reason = MailServer(http, timeout=5).why_not_alive()
    except errors.KumodrError as error:
        return Finding("bad", error.what, "start it, or correct kumod.http in kumodr.yaml")
    return None if reason is None else Finding("bad", f"KumoMTA says: {reason[:100]}", "look into KumoMTA's own log")


def clock_adrift(asked: Callable[[], int] | None = None) -> Finding | None:
    """Say whether the kernel holds this host's clock for not synchronised; None too where it does not tell."""
    if (asked or _adjtimex)() != _TIME_ERROR:
        return None
    text = "this host's clock is not synchronised: times of points would be wrong, and mail after a move may be ignored"
    return Finding("warning", text, "run chrony or systemd-timesyncd on this host")


def stored_too_rarely(plan: Plan) -> tuple[Finding, ...]:
    """Given a plan, say which objectives are shorter than how often `kumodr protect` stores what they are about."""
    rules, wanted = plan.protect, plan.objectives
    pairs = (
        (plan.components.spool, "every", rules.every, "queue", wanted.queue),
        (plan.components.spool, "heartbeat", rules.heartbeat, "queue", wanted.queue),
        (plan.components.config, "config_every", rules.config_every, "configuration", wanted.configuration),
        (plan.components.redis, "redis_every", rules.redis_every, "analytics", wanted.analytics),
        (plan.components.prometheus, "prometheus_every", rules.prometheus_every, "analytics", wanted.analytics),
    )
    return tuple(
        Finding(
            "warning",
            f"objectives.{objective} is {limit:g} s, but protect.{key} is {often:g} s: it cannot be met",
            f"make protect.{key} shorter than objectives.{objective} in kumodr.yaml",
        )
        for component, key, often, objective, limit in pairs
        if component is not None and limit < often
    )


def _file_system(path: Path, mounts: Path) -> str | None:
    """Return the kind of file system that a path is on, or will be on, None where nobody tells."""
    place = os.path.realpath(path)
    best, kind = -1, None
    try:
        lines = mounts.read_text(errors="replace").splitlines()
    except OSError:
        return None
    for line in lines:
        before, _, after = line.partition(" - ")
        fields = before.split()
        if len(fields) < 5 or not after:
            continue
        point = fields[4].replace("\\040", " ")
        if (place == point or place.startswith(point.rstrip("/") + "/")) and len(point) >= best:
            best, kind = len(point), after.split()[0]
    return kind


def _adjtimex() -> int:
    """Ask the kernel how its clock stands, changing nothing (modes 0; adjtimex(2)). A negative answer is no answer."""
    try:
        return int(ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(_SIZE_OF_TIMEX)))
    except (OSError, AttributeError):
        return -1
