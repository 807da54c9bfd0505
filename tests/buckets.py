"""Object stores for tests: two servers of different make that speak S3, on loopback, each with buckets on demand."""

import importlib.util
import logging
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from kumodr.plan.model import VaultPlan

KEY, SECRET = "AKIAKUMODRTEST", "not-a-secret-anywhere"


@dataclass(frozen=True)
class Server:
    """A running server: its address."""

    endpoint: str

    def client(self) -> Any:
        """Return a client of another make, to look and meddle past kumodr."""
        import boto3

        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id=KEY,
            aws_secret_access_key=SECRET,
        )

    def bucket(self, **options: Any) -> str:
        """Make a bucket and return its name."""
        name = f"vault-{uuid.uuid4()}"
        self.client().create_bucket(Bucket=name, **options)
        return name

    def place(self, folder: Path, bucket: str | None = None, endpoint: str | None = None) -> VaultPlan:
        """Given a folder for the credentials, return where a vault in a new bucket would be."""
        return VaultPlan(
            f"s3://{bucket or self.bucket()}/mail/one",
            endpoint=endpoint or self.endpoint,
            region="us-east-1",
            credentials_file=credentials(folder),
            allow_http=True,
            timeout=10.0,
        )


def credentials(folder: Path) -> str:
    """Given a folder, return the path of a credentials file in it."""
    path = folder / "credentials"
    if not path.exists():
        path.touch(mode=0o600)
        path.write_text(f"[default]\naws_access_key_id = {KEY}\naws_secret_access_key = {SECRET}\n")
    return str(path)


@cache
def moto() -> Server:
    """Return the server of this test process, started once; it ends with the process.

    It answers one request at a time: it looks whether a name exists and puts in two steps, which a store must not.
    Under object lock it wants to be told which checksum comes; to Amazon it is enough that one comes.
    """
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    application = DomainDispatcherApplication(create_backend_app)
    turn = threading.Lock()

    def one_at_a_time(environment: Any, start_response: Any) -> Any:
        if "HTTP_X_AMZ_CHECKSUM_SHA256" in environment:
            environment["HTTP_X_AMZ_SDK_CHECKSUM_ALGORITHM"] = "SHA256"
        with turn:
            return application(environment, start_response)

    server = make_server("127.0.0.1", 0, one_at_a_time, threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return Server(f"http://127.0.0.1:{server.server_port}")


@contextmanager
def localbucket(folder: Path) -> Iterator[Server]:
    """Given a folder, run the second make of server on it."""
    if importlib.util.find_spec("localbucket") is None:
        pytest.skip("the package localbucket is not installed; script/setup installs it")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "localbucket", str(folder), "--port", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        server = Server(f"http://127.0.0.1:{port}")
        _wait(server.endpoint)
        yield server
    finally:
        process.kill()
        process.wait()


def _wait(address: str) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            urllib.request.urlopen(address, timeout=1).close()
        except urllib.error.HTTPError:
            return
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise TimeoutError(f"nothing answers at {address}")
