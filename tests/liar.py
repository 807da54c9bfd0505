"""A store that lies: a proxy in front of a server that speaks S3, which breaks requests and answers as it is told."""

import http.client
import random
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

Fault = str | None
Choice = Callable[[str, str], Fault]
"""Given a request's method and path, what goes wrong with it.

"busy": 503, and nothing done; "lost": done, and no answer; "refused": 403, as by a lock; "unknown": 501; "cut": half of
the answer's body, then the connection ends; "short": fewer bytes than there are, called the whole; "hang": no answer
until the proxy ends; "blind": the condition of a put is not passed on; None: nothing.
"""


@dataclass
class Liar:
    """A running proxy. `choose` may be changed at any time; `seen` counts requests by method."""

    endpoint: str
    choose: Choice = lambda _method, _path: None
    seen: dict[str, int] = field(default_factory=dict[str, int])
    faults: int = 0
    under_way: int = 0
    together: int = 0
    """The most requests that were under way at the same time."""
    watch: Callable[[object], None] = lambda _headers: None
    ended: threading.Event = field(default_factory=threading.Event)

    def storm(self, seed: int, share: float, faults: tuple[str, ...] = ("busy", "lost", "cut")) -> None:
        """From now on break so large a share of the requests, at random."""
        chance = random.Random(seed)
        self.choose = lambda _method, _path: chance.choice(faults) if chance.random() < share else None

    def calm(self) -> None:
        """From now on break nothing, and count anew."""
        self.choose = lambda _method, _path: None
        self.seen.clear()


@contextmanager
def lying(behind: str, certificate: Path | None = None) -> Iterator[Liar]:
    """Given the address of a server, run a proxy in front of it; with TLS where a certificate and its key are given."""
    host = urlsplit(behind).netloc
    turn = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            with turn:
                liar.under_way += 1
                liar.together = max(liar.together, liar.under_way)
            try:
                self.answered()
            finally:
                with turn:
                    liar.under_way -= 1

        def answered(self) -> None:
            liar.seen[self.command] = liar.seen.get(self.command, 0) + 1
            liar.watch(self.headers)
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            fault = liar.choose(self.command, self.path)
            liar.faults += fault is not None
            if fault == "hang":
                liar.ended.wait(30)
            if fault in ("busy", "refused", "unknown"):
                code, word = {
                    "busy": (503, "SlowDown"),
                    "refused": (403, "AccessDenied"),
                    "unknown": (501, "NotImplemented"),
                }[fault]
                text = f"<Error><Code>{word}</Code><Message>{word} until 2030-01-01</Message></Error>".encode()
                self.send(code, {"content-type": "application/xml"}, text, len(text))
                return
            status, headers, found = self.forward(body, blind=fault == "blind")
            if fault in ("lost", "hang") or (fault == "cut" and not found):
                self.close_connection = True
                return
            size = len(found) if self.command != "HEAD" else int(headers.get("content-length") or 0)
            if fault == "cut":
                self.close_connection = True
                self.send(status, headers, found[: len(found) // 2], size)
                return
            if fault == "short":
                found = found[: len(found) // 2]
                size = len(found)
            self.send(status, headers, found, size)

        def forward(self, body: bytes, *, blind: bool) -> tuple[int, dict[str, str], bytes]:
            headers = {key: value for key, value in self.headers.items() if key.lower() not in ("connection",)}
            if blind:
                headers = {key: value for key, value in headers.items() if key.lower() != "if-none-match"}
            connection = http.client.HTTPConnection(host, timeout=30)
            try:
                connection.request(self.command, self.path, body or None, headers)
                answer = connection.getresponse()
                return answer.status, {key.lower(): value for key, value in answer.getheaders()}, answer.read()
            finally:
                connection.close()

        def send(self, status: int, headers: dict[str, str], body: bytes, size: int) -> None:
            left_out = ("content-length", "transfer-encoding", "connection", "server", "date")
            with suppress(OSError):
                self.send_response(status)
                for key, value in headers.items():
                    if key not in left_out:
                        self.send_header(key, value)
                self.send_header("content-length", str(size))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

        do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = answer  # noqa: N815 — the names that http.server calls

        def log_message(self, *_args: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    liar = Liar(f"http{'s' if certificate else ''}://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield liar
    finally:
        liar.ended.set()
        server.shutdown()
        server.server_close()
        thread.join()
