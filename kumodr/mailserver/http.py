"""KumoMTA's HTTP interface, as far as kumodr asks it (kumod.openapi.json; facts §4, §5).

Answers are untrusted: bounded in size, and read for what is expected. The endpoints need a listener that trusts this
host (`trusted_hosts`), but for liveness.
"""

import json
from collections.abc import Mapping
from typing import Any

from kumodr import errors

_LARGEST = 64 << 20
"""A node with many thousands of queues answers `/metrics.json` with tens of megabytes."""


class MailServer:
    """One KumoMTA, by the address of its HTTP listener. `timeout` is in seconds, for each call."""

    def __init__(self, url: str, *, timeout: float = 10.0) -> None:
        self.url = url.rstrip("/")
        self._timeout = timeout

    def why_not_alive(self) -> str | None:
        """Return the reason why it does not accept mail now, in its own words, or None. Raise MailServerSilent."""
        status, text = self._ask("GET", "/api/check-liveness/v1")
        return None if status == 200 else text[:200].strip() or f"status {status}"

    def metrics(self) -> Mapping[str, Any]:
        """Return `/metrics.json`: name → help, type, value. Raise MailServerSilent, MailServerRefuses."""
        document = self._json("GET", "/metrics.json")
        return {name: each for name, each in document.items() if isinstance(each, dict)}

    def holds(self, identifier: str) -> bool:
        """Given a message's id, say whether it is in the spool. Raise MailServerSilent, MailServerRefuses.

        Never to be asked before liveness is good: an early question ends a real server (facts §13.21).
        """
        status, text = self._ask("GET", f"/api/admin/inspect-message/v1?id={identifier}&want_body=false")
        if status == 200:
            return True
        if "no such key" in text.lower() or status == 404:
            return False
        raise self._refused(status, text)

    def compact(self, name: str) -> bool:
        """Given "meta" or "data", have that spool compacted; return False where this KumoMTA cannot do that yet.

        Raise MailServerSilent, MailServerRefuses.
        """
        status, text = self._ask("POST", "/api/admin/spool-compact/v1", {"name": name}, timeout=3600.0)
        if status == 404:
            return False
        if status != 200:
            raise self._refused(status, text)
        return True

    def _json(self, method: str, path: str) -> dict[str, Any]:
        status, text = self._ask(method, path)
        if status != 200:
            raise self._refused(status, text)
        try:
            document = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise errors.MailServerRefuses(f"KumoMTA at {self.url} answers {path} with something else") from error
        return document if isinstance(document, dict) else {}

    def _ask(self, method: str, path: str, body: object = None, *, timeout: float | None = None) -> tuple[int, str]:
        import httpx

        try:
            with httpx.stream(method, f"{self.url}{path}", json=body, timeout=timeout or self._timeout) as answer:
                text = bytearray()
                for piece in answer.iter_bytes():
                    text += piece
                    if len(text) > _LARGEST:
                        raise errors.MailServerRefuses(f"KumoMTA at {self.url} answers {path} with too much")
                return answer.status_code, text.decode(errors="replace")
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise errors.MailServerSilent(f"KumoMTA at {self.url} does not answer") from error

    def _refused(self, status: int, text: str) -> errors.KumodrError:
        return errors.MailServerRefuses(f"KumoMTA at {self.url} refuses with {status}: {' '.join(text.split())[:200]}")
