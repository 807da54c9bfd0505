"""A runbook as a page that can be read, and followed by hand, when nothing works: `docs/runbooks/` is made of it.

`python -m kumodr.runbooks.page FOLDER` writes the pages of kumodr's own runbooks; a test compares.
"""

import sys
from pathlib import Path

from kumodr.cli.terminal import age_text
from kumodr.plan.model import Objectives
from kumodr.runbooks.step import OnFailure, Runbook, Step

_FAILURE: dict[OnFailure, str] = {
    "retry": "it is tried again, {attempts} times in all; then the run stops and can be resumed",
    "ask": "a person decides at the terminal: again, skip or stop; without one the run stops and can be resumed",
    "stop": "the run stops and can be resumed",
    "undo": "it is undone, the run stops and can be resumed",
}


def page(runbook: Runbook, command: str) -> str:
    """Given a runbook and the command that runs it, return its page in Markdown."""
    lines = [
        f"# {runbook.title}",
        "",
        f"`{command}` does all of this, and goes on after a crash with `kumodr runs resume`.",
        "This page is made from the runbook itself; it also serves to do the steps by hand.",
        "",
        "| | step | for | expected within |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {number} | {step.name} | {step.purpose} | {age_text(step.budget)} |"
        for number, step in enumerate(runbook.steps, 1)
    ]
    for number, step in enumerate(runbook.steps, 1):
        lines += ["", f"## {number}. {step.name}", "", *_of(step)]
    return "\n".join(lines) + "\n"


def _of(step: Step) -> list[str]:
    words = step.words
    parts = [f"- **What for**: {step.purpose}."]
    parts += [f"- **Nothing is done where**: {words.check}."] if words.check else []
    parts += ["- **A person is asked first** (or `--yes` is given)."] if step.asks is not None else []
    parts += [f"- **Does**: {words.act}."]
    parts += [f"- **Proof**: {words.proof}."] if words.proof else []
    failure = _FAILURE[step.on_failure].format(attempts=step.attempts)
    parts += [f"- **If it fails**: {failure}. It is broken off after {age_text(step.longest)}."]
    if words.by_hand:
        parts += ["", "By hand:", "", "```sh", *words.by_hand, "```"]
    return parts


def pages() -> dict[str, str]:
    """Return the pages of kumodr's own runbooks by file name, with the budgets of the usual objectives."""
    from kumodr.recover.data.runbook import steps_on as data
    from kumodr.recover.system.runbook import steps_on as system
    from kumodr.recover.system.scene import Scene

    scene = Scene({"plan": "kumodr.yaml"})
    made = {"kumodr recover system": system(scene, Objectives()), "kumodr recover data": data(scene, Objectives())}
    return {f"{runbook.name}.md": page(runbook, command) for command, runbook in made.items()}


if __name__ == "__main__":
    for name, text in pages().items():
        Path(sys.argv[1], name).write_text(text)
