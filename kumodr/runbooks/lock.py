"""One run at a time on one site, by name.

The file lock in the state directory is the kernel's: it ends with the process that holds it, however that ends, so a
dead run holds nothing. Where several controllers share a Postgres database, a session's advisory lock there does the
same between hosts: the server gives it up when the connection is gone. What `site_locked` gives asks, before every part
of a step, whether the connection is still there.
"""

import fcntl
import hashlib
import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

from kumodr import errors
from kumodr.runbooks.state import State


@contextmanager
def site_locked(state: State, run: str) -> Generator[Callable[[], None]]:
    """Given the state and a run's name, hold the site for it; give what raises when it is not held any more.

    Raise AnotherRun, naming the run that holds it; StateUnavailable.
    """
    state.prepare()
    descriptor = os.open(_path(state), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _refusal(state, _text(descriptor)) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{run} in process {os.getpid()}".encode(), 0)
        if not state.is_shared:
            yield lambda: None
            return
        with _session(state, run) as connection:
            _take(connection, state)

            def still() -> None:
                try:
                    connection.execute("select 1")
                except Exception as error:
                    raise errors.StateUnavailable(
                        f"the database of runs is gone, and with it the lock of {state.site}"
                    ) from error

            yield still
    finally:
        os.close(descriptor)


def holder(state: State) -> str | None:
    """Given the state, return the name of the run that works on its site now, here or elsewhere, or None."""
    try:
        descriptor = os.open(_path(state), os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        descriptor = None
    if descriptor is not None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return _text(descriptor).partition(" ")[0] or "unknown"
        finally:
            os.close(descriptor)
    if not state.is_shared:
        return None
    with _session(state, "looking") as connection:
        return _holder(connection, state)


def _path(state: State) -> str:
    return str(state.directory / f"runs-{state.site}.lock")


def _text(descriptor: int) -> str:
    return os.pread(descriptor, 200, 0).decode("ascii", "replace").strip()


def _refusal(state: State, held: str) -> errors.AnotherRun:
    return errors.AnotherRun(
        f"{held or 'another run'} is at work on {state.site}",
        remedy="wait for it to end, or interrupt it: it can be resumed",
    )


@contextmanager
def _session(state: State, name: str) -> Generator[Any]:
    import psycopg
    from sqlalchemy import make_url

    url = make_url(state.address)
    try:
        words: dict[str, Any] = {key: str(value) for key, value in url.query.items()}
        words |= {"host": url.host, "port": url.port, "user": url.username, "password": url.password}
        words |= {"dbname": url.database, "application_name": f"kumodr {name}"}
        connect: Any = psycopg.connect
        connection = connect(autocommit=True, **({"connect_timeout": 10} | words))
    except psycopg.Error as error:
        reason = str(error).strip().splitlines()[0]
        where = state.address.rpartition("@")[2]
        raise errors.StateUnavailable(f"the database of runs at {where} does not answer: {reason}") from None
    try:
        yield connection
    finally:
        connection.close()


def _take(connection: Any, state: State) -> None:
    if not connection.execute("select pg_try_advisory_lock(%s)", [_number(state)]).fetchone()[0]:
        raise _refusal(state, f"{_holder(connection, state) or 'another run'} on another host")


def _holder(connection: Any, state: State) -> str | None:
    number = _number(state)
    row = connection.execute(
        "select a.application_name from pg_locks l join pg_stat_activity a using (pid) where l.locktype = 'advisory' "
        "and l.granted and l.classid::bigint = %s and l.objid::bigint = %s and l.objsubid = 1",
        [number >> 32, number & 0xFFFFFFFF],
    ).fetchone()
    return None if row is None else str(row[0]).removeprefix("kumodr ")


def _number(state: State) -> int:
    """Return the number that stands for the site; positive, so that its halves are what pg_locks shows."""
    return int.from_bytes(hashlib.sha256(f"kumodr site {state.site}".encode()).digest()[:8], "big") >> 1
