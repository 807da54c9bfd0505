"""`kumodr prune`: clear away what the plan does not keep any more."""

import argparse
from collections.abc import Mapping
from pathlib import Path

from kumodr import errors
from kumodr.cli.options import add_vault_option, plan_if_any, vault_of, where_of
from kumodr.cli.terminal import Terminal, size_text
from kumodr.clock import system_clock
from kumodr.plan.model import Plan, RetentionPlan
from kumodr.vault.bucket import Bucket, bucket_of
from kumodr.vault.keys import NodeKey
from kumodr.vault.nodes import KEEPER
from kumodr.vault.prune import PrunePlan, apply_prune, plan_prune

_MOST_REASONS = 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--apply", action="store_true", help="do it (default: only say what would be done, and why)")
    parser.add_argument(
        "--retired",
        action="append",
        default=[],
        metavar="NODE",
        help="this node will never add a point again: do not wait for it (may be repeated)",
    )
    parser.add_argument(
        "--state", metavar="DIR", help="where a machine that only prunes has its key (default: the plan's state)"
    )
    add_vault_option(parser)
    parser.epilog = (
        "example:\n  kumodr prune\n  kumodr prune --apply\n"
        "  kumodr prune --apply --vault s3://bucket/mail --state /var/lib/kumodr-keeper"
    )


def run(arguments: argparse.Namespace, terminal: Terminal) -> int:
    plan = plan_if_any(arguments)
    vault = vault_of(arguments, plan)
    key = key_of(arguments.state, plan) if arguments.apply else None
    policies = plan.retention if plan else RetentionPlan()
    found = plan_prune(vault, policies, system_clock(), retired=arguments.retired)
    refused = apply_prune(vault, found, key, system_clock) if key is not None else {}
    bucket = bucket_of(where_of(arguments, plan))
    report(found, terminal, bucket, refused, applied=key is not None)
    return errors.IMPERFECT if found.problems or refused else errors.DONE


def key_of(state: str | None, plan: Plan | None) -> NodeKey:
    """Given `--state` or a plan, return the key that signs what is recorded. Raise UsageWrong without either."""
    if state is not None:
        return NodeKey.load_or_create(Path(state).absolute(), KEEPER)
    if plan is None:
        raise errors.UsageWrong("no plan is found", remedy="give --state DIR for the key of a machine that only prunes")
    return NodeKey.load_or_create(Path(plan.state), plan.site)


def report(
    found: PrunePlan, terminal: Terminal, bucket: Bucket | None, refused: Mapping[str, str], *, applied: bool
) -> None:
    """Print why each component of each point stays or goes, what is freed when, and what the store keeps anyway."""
    now, waits = found.delete_size, found.mark_size + sum(each.size for each in found.waiting)
    reasons = sorted(set(refused.values()))[:_MOST_REASONS]
    document = {
        "applied": applied,
        "decisions": [
            {"point": each.point, "component": each.component, "keeps": each.keeps, "reasons": list(each.reasons)}
            for each in found.decisions
        ],
        "points_removed": [point.id for point in found.manifests],
        "components_removed": [{"point": point.id, "component": name} for point, name in found.dropped],
        "objects_removed": len(found.names),
        "freed_bytes": now,
        "marked_objects": len(found.to_mark),
        "marked_bytes": found.mark_size,
        "waiting": [
            {"mark": each.mark, "objects": each.names, "bytes": each.size, "reason": each.reason}
            for each in found.waiting
        ],
        "refused_objects": len(refused),
        "refused_why": reasons,
        "deleted_stays_stored": bucket.keeps_deleted if bucket else None,
        "problems": [str(problem) for problem in found.problems],
    }
    rows = [
        [each.point, each.component, "stays" if each.keeps else "goes", "; ".join(each.reasons)]
        for each in found.decisions
    ]
    lines = terminal.table(["POINT", "COMPONENT", "", "WHY"], rows) if rows else ["there is no point in the vault"]
    done = ("deleted", "marked") if applied else ("would be deleted", "would be marked")
    lines.append(f"{done[0]} now: {len(found.names)} objects, {size_text(now)}, {len(found.manifests)} whole points")
    lines.append(f"{done[1]} for deletion: {len(found.to_mark)} objects, {size_text(found.mark_size)}")
    lines += [
        f"mark {each.mark} waits: {each.names} objects, {size_text(each.size)}, {each.reason}" for each in found.waiting
    ]
    lines += [
        f"the store keeps {sum(each == why for each in refused.values())} of them: {why}; a later run tries again"
        for why in reasons
    ]
    if bucket is not None and bucket.keeps_deleted:
        lines.append(f"NOTE: {bucket.sentence}")
    lines += [f"PROBLEM: {problem}" for problem in found.problems]
    lines += (
        []
        if applied
        else [f"nothing was changed; `kumodr prune --apply` does it ({size_text(now + waits)} in the end)"]
    )
    terminal.result(document, lines)
