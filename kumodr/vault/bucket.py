"""What a bucket does with what is deleted: versions that are kept, and locks. Asked of S3-compatible stores.

In a versioned bucket a delete only puts a marker in front: the object is hidden, and still stored and paid for, until a
lifecycle rule or somebody with more rights removes the version. Under object lock nobody can before the lock ends.
kumodr deletes no versions: who takes over a keeper must not be able to.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit
from xml.etree import ElementTree

from kumodr.clock import Clock, system_clock
from kumodr.plan.model import VaultPlan
from kumodr.vault.access import Keys, client_options, endpoint_of, s3_keys

_MOST_PAGES = 1000
_LARGEST_ANSWER = 16 << 20


@dataclass(frozen=True)
class Bucket:
    """`versioning` is on, suspended or off, None where it is not known (then `unknown` says why). `lock` says what the
    bucket locks new objects with, None without. `hidden` objects of `hidden_bytes` are deleted and still stored.
    """

    versioning: str | None
    lock: str | None = None
    hidden: int | None = None
    hidden_bytes: int | None = None
    unknown: str | None = None

    @property
    def keeps_deleted(self) -> bool | None:
        """Whether what is deleted now stays stored; None where that is not known."""
        return None if self.versioning is None else self.versioning == "on"

    @property
    def sentence(self) -> str:
        """What that means for who clears the vault."""
        if self.versioning is None:
            return f"whether the bucket keeps versions is not known: {self.unknown}"
        if self.versioning == "off":
            return "the bucket keeps no versions: what is deleted is gone"
        lock = f", under object lock: {self.lock}" if self.lock else ""
        if self.versioning == "suspended":
            return f"the bucket kept versions once{lock}: they stay stored and paid for until a lifecycle rule ends it"
        return (
            f"the bucket keeps versions{lock}: what is deleted is hidden, and stays stored and paid for until a "
            "lifecycle rule (NoncurrentVersionExpiration) ends it"
        )


def bucket_of(where: VaultPlan, *, count: bool = False, clock: Clock = system_clock) -> Bucket | None:
    """Given where a vault is, return what its bucket does with deleted objects, and how much it hides if that is to be
    counted; None for a vault that is in no bucket. It never raises for what the bucket does not tell.
    """
    kind = urlsplit(where.url).scheme
    if kind in ("", "file", "memory"):
        return None
    if kind != "s3":
        return Bucket(None, unknown="kumodr cannot ask this kind of store; look at its console")
    keys = s3_keys(where)
    if keys is None:
        return Bucket(None, unknown="this host has no access key of its own to ask with")
    asking = _Asking(where, keys, clock)
    try:
        versioning = asking.text("versioning", "Status")
        state = {"Enabled": "on", "Suspended": "suspended"}.get(versioning or "", "off")
        lock = asking.lock() if state == "on" else None
        hidden = list(asking.hidden()) if count and state != "off" else None
    except _Untold as error:
        return Bucket(None, unknown=str(error))
    return Bucket(
        state,
        lock,
        len(hidden) if hidden is not None else 0 if state == "off" else None,
        sum(hidden) if hidden is not None else 0 if state == "off" else None,
    )


class _Untold(Exception):
    """Why a bucket does not say."""


class _Asking:
    """Questions about one bucket."""

    def __init__(self, where: VaultPlan, keys: Keys, clock: Clock) -> None:
        import os

        parts = urlsplit(where.url)
        self._region = where.region or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION", "us-east-1")
        endpoint = endpoint_of(where) or f"https://s3.{self._region}.amazonaws.com"
        self._url = f"{endpoint}/{parts.netloc}" if where.addressing == "path" else endpoint
        self._prefix = parts.path.strip("/")
        self._where = where
        self._keys = keys
        self._clock = clock

    def text(self, question: str, tag: str) -> str | None:
        """Given a question and an answer's tag, return what stands there, None where it does not."""
        return _found(self._ask({question: ""}), tag)

    def lock(self) -> str | None:
        """Return what new objects are locked with, None where they are not."""
        try:
            answer = self._ask({"object-lock": ""})
        except _Untold:
            return None  # a store says by an error that nothing of the kind is set
        mode = _found(answer, "Mode")
        days, years = _found(answer, "Days"), _found(answer, "Years")
        if mode is None:
            return "on request" if _found(answer, "ObjectLockEnabled") == "Enabled" else None
        return f"{mode.lower()} for {days or years} {'days' if days else 'years'}"

    def hidden(self) -> Iterator[int]:
        """Yield the size of each version below the vault's prefix that is not the newest."""
        after: dict[str, str] = {}
        for _ in range(_MOST_PAGES):
            prefix = f"{self._prefix}/" if self._prefix else ""
            answer = self._ask({"versions": "", "prefix": prefix, "max-keys": "1000", **after})
            for each in answer.iter():
                if _tag(each) == "Version" and _found(each, "IsLatest") == "false":
                    yield int(_found(each, "Size") or 0)
            if _found(answer, "IsTruncated") != "true":
                return
            following = {
                "key-marker": _found(answer, "NextKeyMarker"),
                "version-id-marker": _found(answer, "NextVersionIdMarker"),
            }
            after = {name: value for name, value in following.items() if value}
        raise _Untold(f"it has more than {_MOST_PAGES * 1000:,} versions")

    def _ask(self, query: dict[str, str]) -> ElementTree.Element:
        import ssl

        import httpx

        from kumodr.vault.awssign import signed

        url, headers = signed(self._url, query, self._region, self._keys, self._clock())
        options = client_options(self._where)
        certificate = options.get("root_certificate")
        verify: Any = ssl.create_default_context(cadata=certificate) if certificate else True
        try:
            with httpx.Client(verify=verify, timeout=min(20.0, self._where.timeout), follow_redirects=False) as client:
                answer = client.get(url, headers=headers)
        except (httpx.HTTPError, OSError) as error:
            raise _Untold(f"the store does not answer ({type(error).__name__})") from None
        if answer.status_code != 200 or len(answer.content) > _LARGEST_ANSWER:
            raise _Untold(f"the store answers with status {answer.status_code}")
        if b"<!DOCTYPE" in answer.content or b"<!ENTITY" in answer.content:
            raise _Untold("the store answers with something else")
        try:
            return ElementTree.fromstring(answer.content)  # noqa: S314 — no entities, and bounded
        except ElementTree.ParseError:
            raise _Untold("the store answers with something else") from None


def _tag(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2]


def _found(element: ElementTree.Element, tag: str) -> str | None:
    return next((each.text for each in element.iter() if _tag(each) == tag), None)
