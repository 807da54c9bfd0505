"""Is what is stored good? Without the key: is everything there. With it: is every byte what it was."""

import json
import secrets as randomness
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kumodr import errors
from kumodr.clock import Clock, text_of_time
from kumodr.source import Progress
from kumodr.vault.facts import Point
from kumodr.vault.fetch import check_paths, open_object
from kumodr.vault.index import header_problem, read_plan
from kumodr.vault.keys import Identities, NodeKey
from kumodr.vault.open import Vault

_MOST_PROBLEMS = 100


@dataclass(frozen=True)
class Verification:
    """The problems found, one sentence each (none: good), and what was looked at."""

    problems: tuple[str, ...]
    facts: Mapping[str, Any]


def verify_shallow(vault: Vault, point: Point) -> Verification:
    """Given a point, look whether every object of it is in the vault with its size. Needs no key, reads no content."""
    problems: list[str] = []
    objects = {each.name: each for section in point.sections for each in (*section.index, *section.objects)}
    for stored in objects.values():
        size = vault.store.size(stored.name)
        if size is None:
            problems.append(f"object {stored.name} is missing")
        elif size != stored.size:
            problems.append(f"object {stored.name} has {size} bytes and should have {stored.size}")
    facts = {"objects": len(objects), "stored_bytes": sum(each.size for each in objects.values())}
    return Verification(tuple(problems[:_MOST_PROBLEMS]), facts)


def verify_deep(vault: Vault, point: Point, identities: Identities, progress: Progress) -> Verification:
    """Given a point and an identity, fetch, decrypt and hash every object and compare the tar stream with the index.

    Raise WrongKey; everything else that is wrong becomes a problem.
    """
    problems: list[str] = []
    objects = plain = files = 0
    for section in point.sections:
        total = sum(stored.size for stored in section.objects)
        done = 0
        try:
            checked = check_paths(
                placed.entry for plan in read_plan(vault, section, identities.secrets) for placed in plan.files
            )
            if (checked.files, checked.size) != (section.files, section.size):
                problems.append(f"{section.component}: the index lists another number of files than the manifest")
            files += checked.files
            plans = read_plan(vault, section, identities.secrets)
            for stored, plan, opened in _opened(vault, section, plans, identities):
                if isinstance(opened, errors.KumodrError):
                    problems.append(f"{section.component}: {opened.what}")
                    continue
                problem = header_problem(plan, opened)
                if problem is not None:
                    problems.append(f"{section.component}: {problem}")
                objects, plain, done = objects + 1, plain + len(opened), done + stored.size
                progress(f"verifying {section.component}", done, total)
        except (errors.ObjectMissing, errors.ObjectDamaged, errors.ManifestUnsafe) as error:
            problems.append(f"{section.component}: {error.what}")
    return Verification(tuple(problems[:_MOST_PROBLEMS]), {"objects": objects, "plain_bytes": plain, "files": files})


def _opened(vault: Vault, section: Any, plans: Any, identities: Identities) -> Any:
    """Yield (stored, plan, plain bytes or what is wrong), in order, a few opened beside each other."""
    from collections import deque
    from concurrent.futures import ThreadPoolExecutor

    def opened(stored: Any, plan: Any) -> bytes | errors.KumodrError:
        try:
            return open_object(vault, stored, plan, identities)
        except (errors.ObjectMissing, errors.ObjectDamaged) as error:
            return error

    with ThreadPoolExecutor(2, thread_name_prefix="kumodr-verify") as pool:
        waiting: deque[Any] = deque()
        for stored, plan in zip(section.objects, plans, strict=False):
            waiting.append((stored, plan, pool.submit(opened, stored, plan)))
            if len(waiting) >= 4:
                stored, plan, future = waiting.popleft()
                yield stored, plan, future.result()
        for stored, plan, future in waiting:
            yield stored, plan, future.result()


def record_verification(
    vault: Vault,
    point: Point,
    level: str,
    result: Verification,
    clock: Clock,
    key: NodeKey | None,
    stream: Mapping[str, Any] | None = None,
) -> None:
    """Given a result, add it to the vault, with its time, signed where a node's key is at hand. Raise StoreReadOnly.

    `stream` is the range of the stream on top that was verified too.
    """
    now = clock()
    document = {
        "point": point.id,
        "manifest": point.sha256,
        "level": level,
        "time": text_of_time(now),
        "good": not result.problems,
        "problems": len(result.problems),
        **({"stream": dict(stream)} if stream else {}),
    }
    body = json.dumps(document).encode() + b"\n"
    signature = {"key": key.public, "ed25519": b64encode(key.sign(body)).decode()} if key else {}
    name = f"verified/{point.id}/{now:%Y%m%dT%H%M%S%f}-{randomness.token_hex(3)}.json"
    vault.store.put_if_absent(name, [body, json.dumps(signature).encode() + b"\n"])
