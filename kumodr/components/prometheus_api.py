"""Questions to Prometheus's API: over the network, or by wget inside its container."""

import json
from typing import Any

from kumodr import errors
from kumodr.runtimes.protocol import Runtime

_LOOK = 5.0
_SNAPSHOT = 120.0


def by_network(address: str, *, post: bool) -> Any:
    """Given an address, return the answer's document, None where it refuses. Raise ComponentUnavailable."""
    import httpx

    try:
        answer = httpx.post(address, timeout=_SNAPSHOT) if post else httpx.get(address, timeout=_LOOK)
        document: Any = answer.json()
    except (httpx.HTTPError, ValueError) as error:
        raise _silent(address) from error
    return document if answer.status_code == 200 else None


def by_wget(runtime: Runtime, service: str, address: str, *, post: bool) -> Any:
    """Given an address as a service sees it, likewise. The official image has busybox's wget, which prints nothing
    where it is refused, and says with which status.
    """
    words = ["wget", "-q", "-O", "-", *(["--post-data="] if post else []), address]
    answer = runtime.exec(service, words, limit=_SNAPSHOT)
    if answer.code:
        said = answer.err.decode(errors="replace")
        if "HTTP/1.1 4" in said or "HTTP/1.1 5" in said or "ERROR 4" in said or "ERROR 5" in said:
            return None
        raise _silent(address)
    try:
        return json.loads(answer.out)
    except ValueError as error:
        raise _silent(address) from error


def _silent(address: str) -> errors.ComponentUnavailable:
    place = address.partition("/api/")[0]
    return errors.ComponentUnavailable(
        f"prometheus at {place} does not answer", remedy="start it, or correct its address"
    )
