"""`kumodr vault`: make a vault, look into it, show its keys."""

import argparse
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from kumodr import errors
from kumodr.cli.options import plan_if_any, where_of
from kumodr.cli.terminal import Terminal, size_text
from kumodr.clock import system_clock
from kumodr.durable import write_file
from kumodr.plan.model import Plan, RetentionPlan, VaultPlan
from kumodr.vault.bucket import Bucket, bucket_of
from kumodr.vault.inventory import inventory
from kumodr.vault.keys import Identity, NodeKey, generate_identity, identity_text, is_beside
from kumodr.vault.nodes import known_keys, register
from kumodr.vault.open import Vault, create_vault, open_vault
from kumodr.vault.prune import plan_prune
from kumodr.vault.recipients import numbers_of, rotate, sealed_to


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "what", choices=("init", "info", "keys", "copy"), help="make one; sizes and counts; who reads; a second copy"
    )
    parser.add_argument(
        "task",
        nargs="?",
        metavar="rotate|TO",
        help="keys rotate: seal what this node adds from now on to a new identity, or to the recipients given; "
        "copy TO: the address of the copy",
    )
    parser.add_argument(
        "--url", "--vault", dest="vault", metavar="URL", help="the vault's address (default: the plan's)"
    )
    parser.add_argument(
        "--recipient",
        action="append",
        default=[],
        metavar="age1…",
        help="init, keys rotate: seal to this public key (may be repeated: operator, escrow)",
    )
    parser.add_argument("--identity-out", metavar="FILE", help="init, keys rotate: write the new identity here")
    parser.add_argument(
        "--without-conditional-put",
        action="store_true",
        help="init, copy: allow a store that cannot refuse a name that exists; then one host alone may add to it",
    )
    to = parser.add_argument_group("copy: how TO is reached (default: by the environment)")
    to.add_argument("--credentials", metavar="FILE", help="its credentials file, private to its owner")
    to.add_argument("--endpoint", metavar="URL", help="https://HOST:PORT of a store that is compatible with S3")
    to.add_argument("--region", metavar="NAME", help="its bucket's region")
    to.add_argument("--certificate", metavar="FILE", help="the certificate of a private authority, as PEM")
    to.add_argument("--allow-http", action="store_true", help="without TLS, in a network that is trusted")
    parser.epilog = (
        "example:\n  kumodr vault init --identity-out /media/usb/kumodr-identity.txt\n"
        "  kumodr vault init --recipient age1…   the identity is made elsewhere, with age-keygen\n  kumodr vault info\n"
        "  kumodr vault copy s3://second/mail --credentials /etc/kumodr/second\n"
        "  kumodr vault keys rotate --identity-out /media/usb/kumodr-identity-2.txt"
    )


def run(arguments: argparse.Namespace, terminal: Terminal) -> int:
    plan = plan_if_any(arguments)
    if arguments.vault is None and plan is None:
        raise errors.UsageWrong("no vault is named", remedy="give --url URL, or a plan that names one")
    where = where_of(arguments, plan)
    what, task = arguments.what, arguments.task
    makes = arguments.recipient or arguments.identity_out
    reaches = [arguments.credentials, arguments.endpoint, arguments.region, arguments.certificate, arguments.allow_http]
    if (what == "copy") != bool(task and what != "keys") or (what == "keys" and task not in (None, "rotate")):
        raise errors.UsageWrong(f"`kumodr vault {what} {task or ''}` means nothing".replace(" `", "`"))
    if makes and what != "init" and task != "rotate":
        raise errors.UsageWrong("--recipient and --identity-out belong to `kumodr vault init` and `keys rotate`")
    if any(reaches) and what != "copy":
        raise errors.UsageWrong(
            "--credentials, --endpoint and the like say how the TO of `kumodr vault copy` is reached",
            remedy="say it of the vault itself in the plan, or by environment variables",
        )
    if arguments.without_conditional_put and what not in ("init", "copy"):
        raise errors.UsageWrong("--without-conditional-put belongs to `kumodr vault init` and `copy`")
    if what == "copy":
        return copy(arguments, where, terminal)
    if what == "init":
        return init(arguments, where, plan, terminal)
    if task == "rotate":
        return rotate_keys(arguments, where, plan, terminal)
    return info(where, plan, terminal) if what == "info" else keys(where, plan, terminal)


def init(arguments: argparse.Namespace, where: VaultPlan, plan: Plan | None, terminal: Terminal) -> int:
    """Make the vault, and an identity unless recipients are given; show the identity once."""
    out = checked_out(arguments, where.url)
    identity = None if arguments.recipient else generate_identity()
    recipients = [identity.recipient] if identity else arguments.recipient
    vault = create_vault(where, recipients, system_clock, unconditional=arguments.without_conditional_put)
    nodes: dict[str, str] = {}
    if plan is not None:
        key = NodeKey.load_or_create(Path(plan.state), plan.site)
        register(vault, key)
        nodes[key.node] = key.public
    document: dict[str, object] = {
        "vault": vault.store.address,
        "id": vault.id,
        "recipients": list(vault.recipients),
        "nodes": nodes,
        "conditional_put": vault.conditional_put,
    }
    lines = [f"made a vault at {vault.store.address}"]
    if not vault.conditional_put:
        lines.append(ONE_WRITER)
    if identity is not None:
        document, lines = shown(identity, vault.id, nodes, out, document, lines)
    terminal.result(document, lines)
    return errors.DONE


ONE_WRITER = (
    "ONE WRITER  its store cannot refuse a name that exists: only one host may add to it, and one prune run at a time"
)


def checked_out(arguments: argparse.Namespace, url: str) -> Path | None:
    """Return where a new identity is to be written. Raise KeyBesideVault, UsageWrong."""
    out = Path(arguments.identity_out).absolute() if arguments.identity_out else None
    local = "://" not in url or url.startswith("file://")
    if out is not None and local and is_beside(out, Path(url.removeprefix("file://"))):
        raise errors.KeyBesideVault(f"the identity would lie at {out}, with the vault")
    if out is not None and out.exists():
        raise errors.UsageWrong(f"{out} exists", remedy="name a new file for the identity")
    if out is not None and arguments.recipient:
        raise errors.UsageWrong("with --recipient no identity is made", remedy="leave --identity-out away")
    return out


def rotate_keys(arguments: argparse.Namespace, where: VaultPlan, plan: Plan | None, terminal: Terminal) -> int:
    """Let this node seal to other recipients from now on; show the new identity once, unless recipients are given."""
    if plan is None:
        raise errors.UsageWrong("keys are changed on the host whose key signs it", remedy="run this where the plan is")
    out = checked_out(arguments, where.url)
    identity = None if arguments.recipient else generate_identity()
    key = NodeKey.load_or_create(Path(plan.state), plan.site)
    vault = open_vault(where)
    register(vault, key)
    vault = rotate(vault, key, [identity.recipient] if identity else arguments.recipient, system_clock)
    document: dict[str, object] = {
        "vault": vault.store.address,
        "id": vault.id,
        "node": key.node,
        "generation": vault.generation,
        "recipients": list(vault.recipients),
    }
    lines = [
        f"{key.node} seals to these and no others from its next backup on:",
        *(f"  {each}" for each in vault.recipients),
        "What is there already still needs the identity from before: keep both, they may stand in one file.",
        "Restart `kumodr protect` where it runs, and do the same on every other host that adds to this vault.",
    ]
    if identity is not None:
        document, lines = shown(identity, vault.id, {key.node: key.public}, out, document, lines)
    terminal.result(document, lines)
    return errors.DONE


def shown(
    identity: Identity,
    vault_id: str,
    nodes: dict[str, str],
    out: Path | None,
    document: dict[str, object],
    lines: list[str],
) -> tuple[dict[str, object], list[str]]:
    """Write the identity to its file, or put it on the screen, and say what to do with it."""
    text = identity_text(identity, vault_id, nodes)
    advice = "Keep it away from this host and from the vault, in two places: without it nothing can be restored."
    if out is None:
        return document | {"identity": text}, [*lines, advice, "This is the identity, shown once:", "", text.rstrip()]
    try:
        write_file(out, text.encode())
    except OSError as error:
        sys.stderr.write(text)
        raise errors.UsageWrong(
            f"the identity could not be written to {out}: {error.strerror}",
            remedy="the vault is made; keep the identity that is printed above",
        ) from error
    return document | {"identity_file": str(out)}, [*lines, f"wrote its identity to {out}", advice]


def info(where: VaultPlan, plan: Plan | None, terminal: Terminal) -> int:
    """Print sizes and counts, how fast it grows, and what `kumodr prune` will free."""
    vault = open_vault(where)
    found = inventory(vault)
    prune = plan_prune(vault, plan.retention if plan else RetentionPlan(), system_clock())
    bucket = bucket_of(where, count=True)
    freed = prune.delete_size + prune.mark_size + sum(each.size for each in prune.waiting)
    document = {
        "vault": found.address,
        "id": found.id,
        "points": found.points,
        "oldest": found.oldest,
        "newest": found.newest,
        "objects": found.objects,
        "stored_bytes": found.stored_bytes,
        "components": dict(found.components),
        "unreferenced_objects": found.unreferenced,
        "stream_objects": found.segments,
        "stream_bytes": found.segment_bytes,
        "growth_bytes_per_day": None if found.growth is None else round(found.growth),
        "prune_frees_now_bytes": prune.delete_size,
        "prune_frees_bytes": freed,
        "conditional_put": vault.conditional_put,
        "bucket": None if bucket is None else {**asdict(bucket), "sentence": bucket.sentence},
        "problems": list(found.problems),
    }
    lines = [
        f"vault {found.id} at {found.address}",
        f"  points     {found.points}" + (f", {found.oldest} to {found.newest}" if found.points else ""),
        f"  objects    {found.objects}, {size_text(found.stored_bytes)} stored",
        *(f"    {name:<10} {size_text(size)} in the objects of all points" for name, size in found.components.items()),
        f"  stream     {found.segments} segments and roll-ups, {size_text(found.segment_bytes)} stored",
        f"  growth     {'not known yet' if found.growth is None else size_text(found.growth) + ' a day'}",
        f"  retention  frees {size_text(prune.delete_size)} now and {size_text(freed)} in the end (`kumodr prune`)",
        f"  unused     {found.unreferenced} objects that no point names (left by runs that were interrupted)",
        *_store_lines(vault, bucket),
        *(f"  PROBLEM    {problem}" for problem in found.problems),
    ]
    terminal.result(document, lines)
    return errors.IMPERFECT if found.problems else errors.DONE


def _store_lines(vault: Vault, bucket: Bucket | None) -> Iterator[str]:
    if not vault.conditional_put:
        yield f"  {ONE_WRITER}"
    if bucket is not None:
        yield f"  versions   {bucket.sentence}"
        if bucket.hidden:
            size = size_text(bucket.hidden_bytes or 0)
            yield f"  hidden     {bucket.hidden} deleted objects, {size}, are still stored"


def copy(arguments: argparse.Namespace, where: VaultPlan, terminal: Terminal) -> int:
    """Bring the vault at TO up to date with this one."""
    from kumodr.vault.copy import copy_vault, open_copy

    to = VaultPlan(
        arguments.task,
        endpoint=arguments.endpoint,
        region=arguments.region,
        credentials_file=arguments.credentials,
        certificate_file=arguments.certificate,
        allow_http=arguments.allow_http,
    )
    vault = open_vault(where)
    target = open_copy(vault, to, unconditional=arguments.without_conditional_put)
    done = copy_vault(vault, target, terminal.progress)
    document = {
        "vault": vault.store.address,
        "copy": target.address,
        "objects": done.objects,
        "bytes": done.size,
        "points": list(done.points),
        "problems": list(done.problems),
    }
    lines = [
        f"copied {done.objects} objects, {size_text(done.size)}, to {target.address}; {len(done.points)} points new"
    ]
    terminal.result(document, lines + [f"  PROBLEM    {problem}" for problem in done.problems])
    return errors.IMPERFECT if done.problems else errors.DONE


def keys(where: VaultPlan, plan: Plan | None, terminal: Terminal) -> int:
    """Print who can read what this node adds, or without a plan what the vault began with, and who signs."""
    vault = open_vault(where)
    if plan is not None:
        vault = sealed_to(vault, NodeKey.load_or_create(Path(plan.state), plan.site))
    nodes = {node: sorted(keys) for node, keys in sorted(known_keys(vault).items())}
    lines = [
        f"what {plan.site if plan else 'a node'} adds is sealed to:",
        *(f"  {each}" for each in vault.recipients),
        "points are signed by:",
    ]
    lines += [f"  {node} {key}" for node, each in nodes.items() for key in each] or ["  no node yet"]
    changed = {node: numbers[-1] for node in nodes if (numbers := numbers_of(vault, node))}
    lines += [f"{node} changed whom it seals to: {count} times" for node, count in changed.items()]
    lines.append("to vouch for a node, an identity file has the line `# kumodr node NAME KEY`")
    terminal.result({"recipients": list(vault.recipients), "nodes": nodes}, lines)
    return errors.DONE
