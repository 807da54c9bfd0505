"""Run a kumod stand-in with a sink, for tests of the stand-in itself."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from servers import free_port, wait_for

from kumodr.ledger.segments import read_records, segment_paths


@dataclass
class StandIn:
    """A running stand-in."""

    folder: Path
    process: "subprocess.Popen[bytes]"
    http: str
    smtp: str

    @property
    def errors(self) -> str:
        """What it printed."""
        return (self.folder / "kumod.err").read_text()

    def records(self) -> list[dict[str, Any]]:
        """Every whole record in its logs."""
        return [json.loads(each) for path in segment_paths(self.folder / "logs") for each in read_records(path)]

    def enumerated(self) -> bool:
        """Whether the enumeration is done."""
        return "initialization complete" in self.errors

    def get(self, path: str, **words: Any) -> httpx.Response:
        """GET from its HTTP interface."""
        return httpx.get(self.http + path, timeout=10, **words)

    def post(self, path: str, document: Any) -> httpx.Response:
        """POST JSON to its HTTP interface."""
        return httpx.post(self.http + path, json=document, timeout=10)

    def stop(self) -> int:
        """Stop it gracefully; return its exit code."""
        self.process.terminate()
        return self.process.wait(20)


@contextmanager
def sink(folder: Path) -> Iterator[str]:
    """Run a sink; give its address."""
    folder.mkdir(exist_ok=True)
    address = f"127.0.0.1:{free_port()}"
    words = ["--listen", address, "--index", str(folder / "index.jsonl"), "--control", str(folder / "control.json")]
    process = subprocess.Popen([sys.executable, "-m", "kumodr.lab.sink", *words])
    try:
        wait_for("the sink", lambda: (folder / "index.jsonl").exists())
        yield address
    finally:
        process.kill()
        process.wait()


@contextmanager
def stand_in(folder: Path, sink_address: str, *, wait: bool = True, **settings: Any) -> Iterator[StandIn]:
    """Run a stand-in on the spool in a folder; `settings` are those of its configuration."""
    folder.mkdir(exist_ok=True)
    smtp, http = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
    config = {
        "meta": str(folder / "spool" / "meta"), "data": str(folder / "spool" / "data"), "logs": str(folder / "logs"),
        "nodeid_path": str(folder / "nodeid"), "smtp": smtp, "http": http, "sink": sink_address, **settings,
    }  # fmt: skip
    (folder / "kumod.json").write_text(json.dumps(config))
    with open(folder / "kumod.err", "wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "kumodr.lab.kumod", "--config", str(folder / "kumod.json")], stderr=output
        )
    running = StandIn(folder, process, f"http://{http}", smtp)
    try:
        if wait:
            wait_for("the stand-in", lambda: running.enumerated() or process.poll() is not None)
        yield running
    finally:
        process.kill()
        process.wait()
