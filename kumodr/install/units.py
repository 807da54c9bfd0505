"""Units of systemd for a site that runs under it: the loop as a service, verification and pruning on timers.

The services run as root from whom the kernel takes everything but reading: KumoMTA's plain spool files are open to
their owner only (mode 0600), so neither a user of its own nor the group kumod would do, and state and vault stay usable
to the operator, who is root as well. What is live is read-only to them; only state and vault are not. With `user` they
run as that user, who gets the right to read what is not its own.
"""

import os
import pwd
import re
from dataclasses import dataclass
from pathlib import Path

from kumodr import errors
from kumodr.install.installation import Command, Installation, Removal
from kumodr.install.marked import marked, standing
from kumodr.install.places import snapshots, written
from kumodr.plan.model import Plan
from kumodr.runtimes.opening import services_of

FOLDER = Path("/etc/systemd/system")
ENVIRONMENT_FILE = Path("/etc/kumodr/environment")
"""Where credentials of an object store are given to the services; it need not be there."""

AGENT, VERIFY, PRUNE = "kumodr-agent.service", "kumodr-verify", "kumodr-prune"
NAMES = (AGENT, f"{VERIFY}.service", f"{VERIFY}.timer", f"{PRUNE}.service", f"{PRUNE}.timer")
_TEMPORARY = (Path("/tmp"), Path("/var/tmp"))  # noqa: S108 — whether something lies there is asked, nothing is written


@dataclass(frozen=True)
class Host:
    """Where units go, the words that run kumodr, and the user of the services (None: root)."""

    folder: Path
    program: tuple[str, ...]
    user: str | None = None


def units(plan_file: Path, plan: Plan, host: Host, *, prune: bool) -> Installation:
    """Given the plan, return the units that protect its site; with `prune` also the timer that clears the vault.

    Raise SpoolMissing where the plan names no spool to follow, InstallUnsafe where the services could not write.
    """
    if plan.components.spool is None:
        raise errors.SpoolMissing("the plan names no spool, so there is nothing for `kumodr protect` to follow")
    for path in written(plan):
        reason = _why_not_writable(path, host.user)
        if reason is not None:
            raise errors.InstallUnsafe(reason, remedy="give it to that user (chown -R), or name another with --user")
    texts = {
        AGENT: _agent(plan_file, plan, host),
        f"{VERIFY}.service": _task("is what is stored good?", "verify", plan_file, plan, host),
        f"{VERIFY}.timer": _timer("kumodr: verify the newest recovery point every week", "Sun *-*-* 02:00:00"),
    }
    if prune:
        texts |= {
            f"{PRUNE}.service": _task("clear away what the plan does not keep", "prune --apply", plan_file, plan, host),
            f"{PRUNE}.timer": _timer("kumodr: prune the vault every night", "*-*-* 03:30:00"),
        }
    files = {host.folder / name: marked(text) for name, text in texts.items()}
    changed = standing(host.folder / AGENT, files[host.folder / AGENT]) != "same"
    timers = [name for name in texts if name.endswith(".timer")]
    commands = [
        Command(("systemctl", "daemon-reload")),
        Command(("systemctl", "enable", "--now", *timers)),
        Command(("systemctl", "enable", AGENT)),
        Command(("systemctl", "restart" if changed else "start", AGENT)),
    ]
    undo = "`kumodr install remove --apply` stops them and takes the files away; vault and state stay"
    return Installation(files, tuple(commands), undo, (Path(plan.state),), tuple(_notes(plan, prune=prune)))


def removal(folder: Path) -> Removal | None:
    """Given where units are, return what takes ours away, or None where there are none."""
    names = [name for name in NAMES if standing(folder / name) not in ("new", "foreign")]
    if not names:
        return None
    running = [name for name in names if name == AGENT or name.endswith(".timer")]
    return Removal(
        before=(Command(("systemctl", "disable", "--now", *running)),) if running else (),
        files=tuple(folder / name for name in names),
        after=(Command(("systemctl", "daemon-reload")),),
    )


def _notes(plan: Plan, *, prune: bool) -> list[str]:
    notes = ["`kumodr verify --restore` is the only real proof: run it now and then where the identity is kept"]
    if not prune:
        notes.append(
            "nothing clears the vault yet: run `kumodr install units --prune` on the machine that may delete there, "
            "best not this one"
        )
    if "://" in plan.vault.url:
        notes.append(f"credentials of the vault go into {ENVIRONMENT_FILE}, NAME=value a line, mode 0600")
    return notes


def _agent(plan_file: Path, plan: Plan, host: Host) -> str:
    mail = services_of(plan.runtime) if plan.runtime.kind == "systemd" else ()
    after = " ".join(["network-online.target", "remote-fs.target", "time-sync.target", *mail])
    return f"""[Unit]
Description=kumodr: keep a copy of the mail site {_text(plan.site)} about a second behind
Wants=network-online.target
After={after}
RequiresMountsFor={_paths(_live(plan))}
StartLimitIntervalSec=0

[Service]
Type=notify
NotifyAccess=main
ExecStart={_words((*host.program, "protect", "--plan", str(plan_file)))}
# What the vault does not take within five seconds is kept on disk; a child that stores a base ends with the loop.
KillMode=mixed
TimeoutStopSec=60
Restart=always
RestartSec=5
# The loop itself says that it goes round. A walk over millions of plain files may take minutes.
WatchdogSec=15min
# The mail server comes first: in time of need kumodr is slow, and ends before it.
CPUWeight=20
IOWeight=20
Nice=5
OOMScoreAdjust=500
MemoryMax=2G
OOMPolicy=continue
{_rights(plan, host)}
[Install]
WantedBy=multi-user.target
"""


def _task(what: str, verb: str, plan_file: Path, plan: Plan, host: Host) -> str:
    return f"""[Unit]
Description=kumodr: {what}
Wants=network-online.target
After=network-online.target remote-fs.target

[Service]
Type=oneshot
ExecStart={_words((*host.program, *verb.split(), "--plan", str(plan_file)))}
TimeoutStartSec=6h
CPUWeight=20
IOWeight=20
Nice=10
OOMScoreAdjust=500
MemoryMax=2G
{_rights(plan, host)}"""


def _timer(description: str, calendar: str) -> str:
    return f"""[Unit]
Description={description}

[Timer]
OnCalendar={calendar}
Persistent=true

[Install]
WantedBy=timers.target
"""


def _rights(plan: Plan, host: Host) -> str:
    """Return what a service may do: read what is live, write state and vault, talk to the network."""
    state, *local_vault = written(plan)
    inside = [path for path in (*_live(plan), *local_vault) if any(path.is_relative_to(each) for each in _TEMPORARY)]
    # A folder of its own instead of /tmp would hide what lies there.
    temporary = "PrivateTmp=no\nReadWritePaths=/tmp /var/tmp" if inside else "PrivateTmp=yes"
    of_prometheus = snapshots(plan)
    rights = "CAP_DAC_READ_SEARCH" + (" CAP_DAC_OVERRIDE" if of_prometheus else "")
    also = [*local_vault, *([of_prometheus] if of_prometheus else [])]
    user = f"User={host.user}\nAmbientCapabilities={rights}\n" if host.user else ""
    return f"""{user}CapabilityBoundingSet={rights}
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=read-only
{temporary}
ReadOnlyPaths={_paths(_live(plan)[:-1], "-")}
ReadWritePaths={" ".join([_paths([state]), _paths(also, "-")]).strip()}
PrivateDevices=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged
SystemCallErrorNumber=EPERM
UMask=0077
CacheDirectory=kumodr
Environment=XDG_CACHE_HOME=/var/cache XDG_STATE_HOME={_word(plan.state)}
EnvironmentFile=-{_paths([ENVIRONMENT_FILE])}
"""


def _live(plan: Plan) -> list[Path]:
    """Return the folders that must be there: spool and logs, and last the state."""
    spool, logs = plan.components.spool, plan.components.logs
    found = [spool.meta, spool.data] if spool else []
    found += logs.directories if logs else ()
    return [Path(each) for each in (*dict.fromkeys(found), plan.state)]


def _why_not_writable(path: Path, user: str | None) -> str | None:
    """Given a folder and the services' user, return why they could not write there, or None. Raise UsageWrong.

    The services have no right to write what belongs to others, not even as root.
    """
    try:
        number = pwd.getpwnam(user).pw_uid if user else 0
    except KeyError:
        raise errors.UsageWrong(f"there is no user {user!r} here", remedy="make one, or leave --user out") from None
    try:
        status = path.stat()
    except OSError:
        return None
    if status.st_uid == number or status.st_mode & 0o002:
        return None
    return (
        f"{path} belongs to user number {status.st_uid}, so the services, run as {user or 'root'}, cannot write there"
    )


def _words(words: tuple[str, ...]) -> str:
    return " ".join(_word(word) for word in words)


def _word(word: str) -> str:
    """Return a word as ExecStart takes it: `%` and `$` mean nothing, spaces and quotes stay. Raise UsageWrong."""
    if "\n" in word:
        raise errors.UsageWrong(f"{word!r} has a line break in it, which a unit cannot hold")
    plain = word.replace("%", "%%").replace("$", "$$")
    if re.fullmatch(r"[-\w/.:=@%$+,]+", plain):
        return plain
    return '"' + plain.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _paths(paths: list[Path], prefix: str = "") -> str:
    """Return paths as lists of paths take them."""
    return " ".join(_word(prefix + os.fspath(path)).replace("$$", "$") for path in paths)


def _text(text: str) -> str:
    return text.replace("%", "%%")
