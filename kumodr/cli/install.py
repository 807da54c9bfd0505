"""`kumodr install`: put kumodr to work here, as units of systemd or as a sidecar; or take it away again."""

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from kumodr import errors
from kumodr.cli.terminal import Terminal
from kumodr.install.installation import Command, Installation, Removal, apply, remove, stand
from kumodr.install.marked import Standing
from kumodr.plan.load import load_plan, nearest
from kumodr.plan.model import Plan
from kumodr.vault.open import open_vault

if TYPE_CHECKING:
    from kumodr.install.sidecar import Site

_WORDS: dict[Standing, str] = {"new": "would write", "changed": "would write anew", "same": "is as it should be:"}
_AGAIN = "the same command with --apply does it"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    tasks = parser.add_subparsers(dest="task", required=True, metavar="TASK")
    units = tasks.add_parser("units", help="units of systemd: the loop as a service, verification on a timer")
    units.add_argument("--user", metavar="NAME", help="the services' user (default: root without root's rights)")
    units.add_argument("--prune", action="store_true", help="clear the vault every night, where this host may delete")
    sidecar = tasks.add_parser("sidecar", help="a container beside those of the compose project")
    sidecar.add_argument("--image", metavar="NAME", default="kumodr", help="kumodr's image (default: kumodr)")
    sidecar.add_argument("--user", metavar="UID:GID", help="the container's user (default: root without root's rights)")
    gone = tasks.add_parser("remove", help="take away what was installed; vault and state stay")
    for task in (units, sidecar, gone):
        task.add_argument("--plan", metavar="FILE", default=argparse.SUPPRESS, help="the plan (default: the nearest)")
        task.add_argument("--json", action="store_true", default=argparse.SUPPRESS, help="one JSON document")
        task.add_argument("--apply", action="store_true", help="do it (default: only print what would be done)")
    for task in (units, gone):
        task.add_argument("--to", metavar="DIR", help="the folder of the units (default: /etc/systemd/system)")
    parser.epilog = (
        "example:\n  kumodr install units            print every file and command\n"
        "  kumodr install units --apply    write and start them\n"
        "  kumodr install sidecar --image registry.example/kumodr:1 --apply\n  kumodr install remove --apply"
    )


def run(arguments: argparse.Namespace, terminal: Terminal) -> int:
    plan_file = Path(arguments.plan).absolute() if arguments.plan else nearest(Path.cwd())
    plan = load_plan(str(plan_file))
    if arguments.task == "sidecar":
        return beside(plan_file, plan, arguments, terminal)
    from kumodr.install import units

    folder = Path(arguments.to).absolute() if arguments.to else units.FOLDER
    if arguments.task == "remove":
        found = [each for each in (units.removal(folder), _removal_of_sidecar(plan, terminal)) if each is not None]
        if not found:
            raise errors.NothingInstalled(f"nothing of `kumodr install` is in {folder} or beside the plan's project")
        return take_away(found, terminal, do=arguments.apply)
    must_have_vault(plan)
    host = units.Host(folder, program(), arguments.user)
    return put(units.units(plan_file, plan, host, prune=arguments.prune), terminal, do=arguments.apply)


def beside(plan_file: Path, plan: Plan, arguments: argparse.Namespace, terminal: Terminal) -> int:
    """Put a sidecar into the plan's compose project."""
    from kumodr.install.sidecar import sidecar, why_no_image

    site = site_of(plan, terminal)
    if site is None:
        raise errors.RuntimeUnknown("the plan's runtime is no compose project, so there is nothing to be beside of")
    must_have_vault(plan)
    installation = sidecar(plan_file, plan, site, arguments.image, arguments.user)
    if plan.components.images is not None:
        # Before the sidecar begins its base: only one of them stores at a time.
        store = Command((*program(), "backup", "images", "--plan", str(plan_file)))
        installation = replace(installation, commands=(store, *installation.commands))
    reason = why_no_image(arguments.image, site)
    if reason is not None and arguments.apply:
        raise reason
    if reason is not None:
        terminal.note(f"before it can be started: {reason}")
    return put(installation, terminal, do=arguments.apply)


def site_of(plan: Plan, terminal: Terminal) -> "Site | None":
    """Return the plan's compose project, None where it has none."""
    if plan.runtime.kind != "compose":
        return None
    from kumodr.install.sidecar import Site
    from kumodr.runtimes.commands import run as run_command
    from kumodr.runtimes.compose import ComposeRuntime
    from kumodr.runtimes.opening import project_of

    project = project_of(plan.runtime)
    return Site(project, ComposeRuntime(project, say=terminal.note), run_command)


def _removal_of_sidecar(plan: Plan, terminal: Terminal) -> Removal | None:
    site = site_of(plan, terminal)
    if site is None:
        return None
    from kumodr.install.sidecar import removal

    return removal(site)


def must_have_vault(plan: Plan) -> None:
    """Raise VaultMissing where the plan's vault is a folder and none. What needs credentials is not asked here."""
    if "://" not in plan.vault.url:
        open_vault(plan.vault)


def program() -> tuple[str, ...]:
    """Return the words that run this kumodr from anywhere."""
    script = Path(sys.executable).with_name("kumodr")
    return (str(script),) if script.exists() else (sys.executable, "-m", "kumodr")


def put(installation: Installation, terminal: Terminal, *, do: bool, again: str = _AGAIN) -> int:
    """Given an installation, print it, or with `do` carry it out."""
    stands = stand(installation)
    if do:
        apply(installation, terminal.note)
    document = {
        "applied": do,
        "files": [
            {"path": str(path), "was": stands[path], "text": data.decode()} for path, data in installation.files.items()
        ],
        "commands": [str(each) for each in installation.commands],
        "notes": list(installation.notes),
        "undo": installation.undo,
    }
    lines: list[str] = []
    for path, data in () if do else installation.files.items():
        lines.append(f"{_WORDS[stands[path]]} {path}")
        lines += [f"    {line}".rstrip() for line in data.decode().splitlines()] if stands[path] != "same" else []
    lines += [] if do else _to_run(installation.commands)
    lines += [f"note: {note}" for note in installation.notes]
    lines.append(f"to undo: {installation.undo}")
    lines.append("done" if do else f"nothing was changed; {again}")
    terminal.result(document, lines)
    return errors.DONE


def take_away(removals: list[Removal], terminal: Terminal, *, do: bool) -> int:
    """Given removals, print them, or with `do` carry them out."""
    for each in removals if do else ():
        remove(each, terminal.note)
    commands = [command for each in removals for command in (*each.before, *each.after)]
    files = [path for each in removals for path in each.files]
    document = {"applied": do, "files": [str(path) for path in files], "commands": [str(each) for each in commands]}
    lines = [] if do else [f"would remove {path}" for path in files] + _to_run(commands)
    lines.append("done" if do else "nothing was changed; the same command with --apply does it")
    terminal.result(document, lines)
    return errors.DONE


def _to_run(commands: tuple[Command, ...] | list[Command]) -> list[str]:
    return [f"would run {command}" for command in commands]
