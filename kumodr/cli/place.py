"""`kumodr place`: put what was restored where its site has it. Says what it would do, and does it with --apply."""

import argparse
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from kumodr import errors
from kumodr.cli.terminal import Terminal, size_text
from kumodr.clock import system_clock

if TYPE_CHECKING:
    from kumodr.recover.place import Folder, Placing

_SHOWN = 40


def add_arguments(parser: argparse.ArgumentParser) -> None:
    from kumodr.recover.place import COMPONENTS

    parser.add_argument("directory", help="what `kumodr restore` brought back")
    parser.add_argument(
        "--component", action="append", default=[], choices=COMPONENTS, help="only this one (may be repeated)"
    )
    parser.add_argument(
        "--unreconciled", action="store_true", help="the spool too where it was not reconciled: mail may be sent twice"
    )
    parser.add_argument("--apply", action="store_true", help="do it (default: only print what would be done)")
    parser.epilog = (
        "example:\n  kumodr place /srv/recovered            print every file and folder\n"
        "  kumodr place /srv/recovered --apply\n  kumodr place /srv/recovered --component config --apply"
    )


def run(arguments: argparse.Namespace, terminal: Terminal) -> int:
    from kumodr.recover.place import Placed, place, plan_placing

    directory = Path(arguments.directory).absolute()
    planned = plan_placing(directory, arguments.component, reconciled=not arguments.unreconciled)
    placed = Placed({}, {})
    if arguments.apply:
        placed = place(planned, progress=terminal.progress, say=terminal.note, clock=system_clock)
        terminal.clear()
    commands = following(planned, terminal)
    document = {
        "applied": arguments.apply,
        "config": [{"path": str(each.path), "action": each.action} for each in planned.config],
        "folders": [
            {
                "component": each.place.component,
                "path": each.place.path,
                "volume": each.place.volume[0] if each.place.volume else None,
                "files": each.size.files,
                "size": each.size.size,
                "action": "nothing" if each.done else "fill",
            }
            for each in planned.folders
        ],
        "vetted": dict(placed.vetted),
        "environment_differs": [
            {"service": service, "variables": list(names)} for service, names in placed.differing.items()
        ],
        "absent": list(planned.absent),
        "next": commands,
    }
    lines = [] if arguments.apply else _config_lines(planned)
    lines += [_line(each, done=arguments.apply) for each in planned.folders if each.source is not None]
    lines += [f"  {each}: was not restored, so it is not placed" for each in planned.absent]
    if arguments.apply:
        if placed.vetted:
            lines.append(f"the spool was read in its place: {placed.vetted['messages']} messages")
        lines += [
            f"{service} ran with other values of {', '.join(names)} than the project gives it: set them in .env, "
            f"see {directory}/config/environment.{service}"
            for service, names in placed.differing.items()
        ]
        lines += ["placed; nothing was started. Next:", *(f"  {each}" for each in commands)]
    else:
        lines.append("nothing was done; `--apply` does it")
    terminal.result(document, lines)
    return errors.IMPERFECT if planned.absent or placed.differing else errors.DONE


def following(planned: "Placing", terminal: Terminal) -> list[str]:
    """Return the commands that start what was placed."""
    from kumodr.recover.place import project_of

    runtime, project, compose = planned.places.runtime, planned.project, project_of(planned, terminal.note)
    if compose is not None:
        words = [
            *(compose.tool() if project and project.is_dir() else ["docker-compose"]),
            *(["-p", runtime.project] if runtime.project else []),
        ]
        words += [word for file in runtime.files for word in ("-f", file)]
        words += [word for each in runtime.profiles for word in ("--profile", each)]
        return [f"cd {shlex.quote(str(project))}", shlex.join([*words, "up", "-d"])]
    if runtime.kind == "systemd":
        units = [each for each in (runtime.redis, runtime.prometheus, *runtime.others, runtime.kumod) if each]
        return ["systemctl daemon-reload", shlex.join(["systemctl", "start", *units])]
    return ["start the services of the site"]


def _config_lines(planned: "Placing") -> list[str]:
    files = [each for each in planned.config if each.action == "write" and not each.source.is_dir()]
    lines = [f"would write {each.path}" for each in files[:_SHOWN]]
    lines += [f"  … and {len(files) - _SHOWN} more" for _ in files[_SHOWN : _SHOWN + 1]]
    there = sum(each.action == "nothing" and not each.source.is_dir() for each in planned.config)
    lines += [f"{there} files of the configuration are there already"] if there else []
    project = planned.project
    lines += [f"would create the containers and volumes of {project}, and start none"] if project else []
    return lines


def _line(folder: "Folder", *, done: bool) -> str:
    place = folder.place
    where = f"volume {place.volume[0]}, {place.volume[1] or 'its root'}" if place.volume else place.path
    what = f"{folder.size.files} files, {size_text(folder.size.size)}"
    if folder.done:
        return f"  {place.component:<11} is there: {where}"
    return f"  {place.component:<11} {'placed' if done else 'would be placed'}: {what} → {where}"
