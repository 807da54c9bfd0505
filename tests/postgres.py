"""A real Postgres server for tests: on a free loopback port, in a directory of its own, never as root."""

import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from servers import free_port, running, wait_for

PASSWORD = "se cret/@:"


def programs() -> Path | None:
    """Return the folder with Postgres' programs, None where it is not installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    return found[-1].parent if found else None


@contextmanager
def postgres_server(folder: Path) -> Iterator[str]:
    """Run a server whose user `kumodr` has PASSWORD; give the address of its database, without the password."""
    tools = programs()
    assert tools is not None, "script/setup installs postgresql"
    home = Path("/tmp") / f"kumodr-postgres-{os.getpid()}-{free_port()}"  # its user must be able to go there
    home.mkdir(mode=0o755)
    try:
        secret = home / "password"
        secret.write_text(PASSWORD + "\n")
        user = {"user": "postgres"} if os.geteuid() == 0 else {}
        if user:
            account = pwd.getpwnam("postgres")
            for path in (home, secret):
                os.chown(path, account.pw_uid, account.pw_gid)
        data, port = home / "data", free_port()
        words = ["-D", str(data), "-U", "kumodr", "--auth=scram-sha-256", f"--pwfile={secret}", "--no-sync"]
        subprocess.run([tools / "initdb", *words], check=True, capture_output=True, cwd=home, **user)
        become = ["setpriv", f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--clear-groups"] if user else []
        options = ["-D", str(data), "-h", "127.0.0.1", "-p", str(port), "-k", str(home), "-F"]
        with running(*become, str(tools / "postgres"), *options, log=folder / "postgres.log") as process:

            def answers() -> bool:
                ready = subprocess.run([tools / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(port)], check=False)
                assert process.poll() is None, (folder / "postgres.log").read_text()
                return ready.returncode == 0

            wait_for("postgres", answers)
            yield f"postgresql://kumodr@127.0.0.1:{port}/postgres"
            process.terminate()
            process.wait(20)
    finally:
        shutil.rmtree(home, ignore_errors=True)
