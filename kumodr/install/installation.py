"""An installation: files to write and commands to run, first said, then done; and the same backwards."""

import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from kumodr import errors
from kumodr.durable import sync_directory, write_file
from kumodr.install.marked import Standing, standing
from kumodr.runtimes.commands import Runner, run

_LIMIT = 600.0


@dataclass(frozen=True)
class Command:
    """A command, with the folder that it runs in (None: anywhere).

    `act` does the same and knows its errors by name; without it the words are run.
    """

    words: tuple[str, ...]
    directory: Path | None = None
    act: Callable[[], None] | None = None

    def __str__(self) -> str:
        text = shlex.join(self.words)
        return text if self.directory is None else f"cd {shlex.quote(str(self.directory))} && {text}"


@dataclass(frozen=True)
class Installation:
    """Files with their bytes, and the commands that put them to work.

    `folders` are made where they are missing, open to their owner only. `notes` are for the operator to read, `undo`
    says in a sentence how to take it back.
    """

    files: Mapping[Path, bytes]
    commands: tuple[Command, ...]
    undo: str
    folders: tuple[Path, ...] = ()
    notes: tuple[str, ...] = field(default=())
    mode: int = 0o644


def stand(installation: Installation) -> dict[Path, Standing]:
    """Given an installation, return how each of its files stands. Raise InstallUnsafe where one is not ours."""
    found: dict[Path, Standing] = {path: standing(path, data) for path, data in installation.files.items()}
    for path, how in found.items():
        _must_be_ours(path, how)
    return found


def apply(installation: Installation, say: Callable[[str], None], runner: Runner = run) -> None:
    """Given an installation, write what is not so yet, then run its commands. Doing it twice is doing it once.

    Nothing is written where a file there is not ours. Raise InstallUnsafe, InstallFailed.
    """
    stands = stand(installation)
    try:
        for folder in installation.folders:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for path, data in installation.files.items():
            if stands[path] != "same":
                path.parent.mkdir(parents=True, exist_ok=True)
                write_file(path, data, mode=installation.mode)
                say(f"wrote {path}")
    except OSError as error:
        raise errors.InstallFailed(f"{error.filename or 'a file'} cannot be written: {error.strerror}") from error
    _run_all(installation.commands, say, runner)


@dataclass(frozen=True)
class Removal:
    """What takes an installation back: commands, then files, then commands again. What was stored stays."""

    before: tuple[Command, ...]
    files: tuple[Path, ...]
    after: tuple[Command, ...] = ()
    folder: Path | None = None
    """Goes too where nothing of the operator's is in it."""


def remove(removal: Removal, say: Callable[[str], None], runner: Runner = run) -> None:
    """Given a removal, do it. Raise InstallUnsafe before anything is done where a file is not ours, InstallFailed."""
    for path in removal.files:
        _must_be_ours(path, standing(path))
    _run_all(removal.before, say, runner)
    try:
        for path in removal.files:
            path.unlink(missing_ok=True)
            sync_directory(path.parent)
            say(f"removed {path}")
        if removal.folder is not None and removal.folder.is_dir() and not any(removal.folder.iterdir()):
            removal.folder.rmdir()
    except OSError as error:
        raise errors.InstallFailed(f"{error.filename or 'a file'} cannot be removed: {error.strerror}") from error
    _run_all(removal.after, say, runner)


def _must_be_ours(path: Path, how: Standing) -> None:
    if how == "foreign":
        raise errors.InstallUnsafe(f"{path} is there, and `kumodr install` did not write it")
    if how == "edited":
        raise errors.InstallUnsafe(
            f"{path} was edited since `kumodr install` wrote it",
            remedy="put the change into a file of its own (a drop-in, another compose file) and remove this one",
        )


def _run_all(commands: tuple[Command, ...], say: Callable[[str], None], runner: Runner) -> None:
    for command in commands:
        say(f"running {command}")
        if command.act is not None:
            command.act()
            continue
        answer = runner(command.words, limit=_LIMIT, directory=command.directory)
        if answer.code:
            text = " ".join((answer.err or answer.out).decode(errors="replace").split())[-300:]
            raise errors.InstallFailed(f"`{command}` failed: {text or f'exit code {answer.code}'}")
