"""What was saved, what was not, how long it took, and what the usual way would have cost."""

from dataclasses import asdict
from typing import Any

from kumodr.cli.terminal import age_text
from kumodr.recover.data.hold import nothing_damaged
from kumodr.recover.system.prove import measured
from kumodr.recover.system.scene import Scene
from kumodr.runbooks.step import Context, Outcome


def is_sound(_scene: Scene, context: Context) -> Outcome | None:
    """Return that there is nothing to report, or None."""
    return nothing_damaged(context)


def report(scene: Scene, context: Context) -> Outcome:
    """Sum up the run. The age of the vault's copy is no measure of it: the damaged spool was newer."""
    facts = context.facts
    if "spool" not in facts["damaged"]:
        return Outcome(f"recovered: {', '.join(facts['damaged'])}; the spool was sound, and left alone")
    rows = [each for each in measured(scene, context) if each.objective != "queue"]
    table: list[dict[str, Any]] = [asdict(each) | {"met": each.met} for each in rows]
    counts = (
        f"{facts['lost']:,} are lost, {facts['perhaps_lost']:,} perhaps, {facts['uncertain']:,} may have been sent "
        f"already: {facts['lists']}"
    )
    lines = [
        f"{facts['expected']:,} messages are in the spool again; {counts}",
        _compared(facts["usual_way"]),
        *(
            f"{each.objective}: {age_text(each.measured) if each.measured is not None else 'not known'} "
            f"(allowed {age_text(each.allowed)}), {each.how}"
            for each in rows
        ),
    ]
    missed = tuple(f"objective missed: {each.objective}" for each in rows if each.met is False)
    return Outcome("\n".join(lines), {"objectives": table}, missed)


def _compared(usual: dict[str, Any]) -> str:
    lost, base = usual["would_have_lost"], usual["base"]
    if base is None:
        return f"removing the spool, with no backup at hand, would have lost {lost:,} messages"
    return f"removing the spool and going back to the last whole backup, {base}, would have lost {lost:,} messages"
