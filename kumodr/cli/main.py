"""The command `kumodr`: find the verb, run it, and turn every end into an exit code and one sentence.

Verbs are loaded when they are used: a command that finds nothing to do should end in a fraction of a second.
A verb is a module with `add_arguments(parser)` and `run(arguments, terminal) -> int`.
"""

import argparse
import importlib
import os
import signal
import sys
from collections.abc import Callable, Sequence
from types import FrameType

from kumodr import __version__, errors
from kumodr.cli.terminal import Terminal, write_trace

VERBS = {
    "init": "look at this machine and write a commented kumodr.yaml",
    "check": "is protection set up and flowing?",
    "status": "the objectives against now, in one screen",
    "vault": "make a vault, look into it, show its keys",
    "backup": "store a recovery point now",
    "protect": "keep a second copy about a second behind the live spool, until stopped",
    "points": "list the recovery points",
    "verify": "is what is stored good?",
    "prune": "clear away what the plan does not keep any more; says why, and does it with --apply",
    "restore": "bring a stored state back into an empty directory",
    "place": "put what was restored where its site has it: configuration, folders, volumes; does it with --apply",
    "standby": "keep a directory up to date with the stream, ready to take over",
    "images": "give restored images back to Docker, without a registry",
    "spool": "look into a spool: status, list, show, vet, export",
    "health": "does the mail service work now? services, listeners, queues, disks",
    "mail-test": "send a message through the mail server and follow it to its end",
    "scripts": "the tool tree that written recovery plans name, as thin calls of kumodr",
    "install": "put kumodr to work here: units of systemd, or a sidecar of a compose project",
    "recover": "bring a whole mail site back, step by step, proved at the end",
    "runs": "start, list, show, resume or give up runs of runbooks",
    "plan": "show the plan, or the schema of kumodr.yaml",
    "lab": "a miniature mail site on this machine, to try everything on",
}

EXIT_CODES = """exit codes:
  0 done   1 failed   2 wrong usage   3 done, but imperfect (said what)
  4 nothing to do it with (no point, no vault, no tool)   5 refused as unsafe
  6 wrong key   7 another run holds the lock   130 interrupted"""


def parser_of_verb(verb: str) -> argparse.ArgumentParser:
    """Given a verb's name, return its parser, with the options that every verb has."""
    parser = argparse.ArgumentParser(
        prog=f"kumodr {verb}",
        description=VERBS[verb],
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--plan", metavar="FILE", help="the plan (default: the nearest kumodr.yaml)")
    parser.add_argument("--json", action="store_true", help="one JSON document on standard output")
    module = importlib.import_module(f"kumodr.cli.{verb.replace('-', '_')}")
    module.add_arguments(parser)
    _finish(parser, parser.epilog or "")
    return parser


def _finish(parser: argparse.ArgumentParser, example: str) -> None:
    """Give a parser and its tasks' parsers their own part of the example, and the exit codes."""
    tasks = [
        each
        for action in parser._actions  # pyright: ignore[reportPrivateUsage] # there is no other way
        if isinstance(action.choices, dict)
        for each in action.choices.values()
        if isinstance(each, argparse.ArgumentParser)
    ]
    for task in tasks:
        own = [line for line in example.splitlines() if line.startswith(f"  {task.prog.split(' [')[0]}")]
        _finish(task, "\n".join(["example:", *own]) if own else task.epilog or example)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = f"{example}\n\n{EXIT_CODES}".strip()


def overview() -> str:
    """Return what `kumodr --help` prints."""
    lines = [f"kumodr {__version__}: disaster recovery for KumoMTA", "", "usage: kumodr VERB [options]", ""]
    lines += [f"  {verb:<9} {summary}" for verb, summary in VERBS.items()]
    lines += ["", "`kumodr VERB --help` gives the options and an example.", "", EXIT_CODES]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Given the command line, run its verb and return the exit code. Never raises."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words in (["--version"], ["-V"]):
        sys.stdout.write(f"kumodr {__version__}\n")
        return errors.DONE
    if not words or words[0] in ("--help", "-h", "help"):
        sys.stdout.write(overview() + "\n")
        return errors.DONE if words else errors.USAGE
    terminal = Terminal(json="--json" in words)
    return ended(lambda: _run(words, terminal), terminal)


def entry() -> None:
    """What the program `kumodr` runs: `main`, and its exit code.

    An interrupted command leaves by os._exit, when everything is cleaned up and said: an interrupt that met the
    interpreter while it imported a dataclass would else end as death by SIGINT, whatever exit code is given.
    """
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    if code == errors.INTERRUPTED:
        os._exit(code)
    sys.exit(code)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    """SIGTERM ends a command as Ctrl-C does: through every `finally`."""
    raise KeyboardInterrupt


def _run(words: list[str], terminal: Terminal) -> int:
    from kumodr.cli.options import with_relative_times

    verb = words[0]
    if verb not in VERBS:
        raise errors.UsageWrong(f"there is no verb {verb!r}", remedy="`kumodr --help` lists the verbs")
    parser = parser_of_verb(verb)
    module = importlib.import_module(f"kumodr.cli.{verb.replace('-', '_')}")
    return module.run(parser.parse_args(with_relative_times(words[1:])), terminal)


def ended(act: Callable[[], int], terminal: Terminal) -> int:
    """Given what a command does, do it, and turn every end into an exit code and one sentence. Never raises."""
    previous = signal.signal(signal.SIGTERM, _interrupt)
    try:
        return act()
    except errors.KumodrError as error:
        terminal.failure(error)
        return error.exit_code
    except KeyboardInterrupt:
        terminal.failure(errors.Interrupted("interrupted"))
        return errors.INTERRUPTED
    except BrokenPipeError:
        sys.stderr.close()
        return errors.DONE
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else errors.USAGE
    except Exception as bug:  # noqa: BLE001 — the one place where a bug becomes a sentence and a trace in the log file
        terminal.failure(
            errors.KumodrError(f"kumodr has a bug: {bug!r}", remedy=f"please report it with {write_trace()}")
        )
        return errors.FAILED
    finally:
        signal.signal(signal.SIGTERM, previous)
