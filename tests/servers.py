"""Real servers for tests, on free loopback ports, ended by the test that started them."""

import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import redis


def free_port() -> int:
    """Return a loopback port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(what: str, condition: Callable[[], bool], limit: float = 20) -> None:
    """Wait until the condition holds; fail after `limit` seconds."""
    deadline = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < deadline, f"waited {limit} s for {what}"
        time.sleep(0.02)


@contextmanager
def running(*command: str, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a server for the time of the block; its output goes to `log`."""
    with open(log, "wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, stdin=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@contextmanager
def redis_server(folder: Path, *options: str, password: str | None = None) -> Iterator[tuple[str, redis.Redis]]:
    """Run a Redis server in a folder; give its address and a connection."""
    folder.mkdir(exist_ok=True)
    port = free_port()
    words = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", ""]
    words += ["--requirepass", password] if password else []
    with running(*words, *options, log=folder / "log"):
        server = redis.Redis(port=port, password=password)

        def answers() -> bool:
            try:
                return bool(server.ping())
            except redis.ConnectionError:
                return False

        wait_for("redis", answers)
        yield f"redis://127.0.0.1:{port}", server
        server.close()


@contextmanager
def prometheus_server(folder: Path, *options: str) -> Iterator[str]:
    """Run a Prometheus server that scrapes itself, its data in `folder/data`; give its address."""
    folder.mkdir(exist_ok=True)
    port = free_port()
    (folder / "prometheus.yml").write_text(
        "global: {scrape_interval: 1s}\nscrape_configs:\n- job_name: self\n  static_configs:\n"
        f"  - targets: ['127.0.0.1:{port}']\n"
    )
    words = [f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}"]
    with running("prometheus", *words, f"--web.listen-address=127.0.0.1:{port}", *options, log=folder / "log"):
        address = f"http://127.0.0.1:{port}"
        wait_for("prometheus and its first scrape", lambda: scraped(address))
        yield address


def scraped(address: str) -> bool:
    """Whether a Prometheus server answers and has scraped something."""
    try:
        answer = httpx.get(f"{address}/api/v1/query", params={"query": "up"}, timeout=2)
        return bool(answer.json()["data"]["result"])
    except (httpx.HTTPError, ValueError, KeyError):
        return False
