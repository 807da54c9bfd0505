"""Is the stream good? Without the key: names, heads, signatures, sizes and the chain. With it: every byte."""

from collections.abc import Iterator

from kumodr import errors
from kumodr.source import Progress
from kumodr.vault.keys import Identities
from kumodr.vault.open import Vault
from kumodr.vault.segment import Head
from kumodr.vault.stream import Listing, Part, Trust, completed, why_it_ends
from kumodr.vault.streamread import heads, opened
from kumodr.vault.verify import Verification

_MOST_PROBLEMS = 100


def verify_stream(
    vault: Vault, found: Listing, begin: int, trust: Trust, identities: Identities | None, progress: Progress
) -> Verification:
    """Given an epoch's names, look at every segment from `begin` on, the roll-ups and what they repeat.

    With identities each is fetched, hashed and opened too. Raise WrongKey; what else is wrong becomes a problem.
    """
    found, reach = completed(vault, found, begin)
    problems = [why_it_ends(found, reach).what] if reach < found.newest else []
    chain = _Chain()
    size = count = rollups = 0
    parts = _parts(found, begin)
    looked = heads(vault, parts, trust) if identities is None else opened(vault, parts, trust, identities)
    for part, outcome in looked:
        if isinstance(outcome, errors.KumodrError):
            problems.append(outcome.what)
            continue
        head = outcome if isinstance(outcome, Head) else outcome.head
        problem = chain.why_not(head)
        problems += [f"{part.name} {problem}"] if problem else []
        count, rollups, size = count + 1, rollups + head.is_rollup, size + head.sealed_size
        progress("verifying the stream", size, 0)
    facts = {"epoch": found.epoch, "first": begin, "last": reach, "objects": count, "rollups": rollups, "bytes": size}
    return Verification(tuple(problems[:_MOST_PROBLEMS]), facts)


def _parts(found: Listing, begin: int) -> Iterator[Part]:
    for number in sorted(number for number in found.singles if number >= begin):
        yield Part(found.node, found.epoch, number, number)
    for first, last in found.rollups:
        if last >= begin:
            yield Part(found.node, found.epoch, first, last)


class _Chain:
    """The hashes of the heads seen so far, by number; singles come in order, then the roll-ups."""

    def __init__(self) -> None:
        self._hashes: dict[int, bytes] = {}

    def why_not(self, head: Head) -> str | None:
        """Given a head, return how it contradicts the others, or None."""
        before = self._hashes.get(head.first - 1)
        at_end = self._hashes.setdefault(head.last, _short(head.hash))
        if head.first == 1 and head.previous is not None:
            return "is the first segment and names one before it"
        if before is not None and (head.previous is None or _short(head.previous) != before):
            return "does not follow the segment before it that is in the vault"
        if at_end != _short(head.hash):
            return "ends with another segment than the one in the vault"
        return None


def _short(digest: str) -> bytes:
    """Half of a hash in bytes: chains of a month are held in memory."""
    return digest[:32].encode()
