"""DuckDB as the ledger opens it: an interrupt is an interrupt, whatever DuckDB makes of it."""

import os
import signal
import threading

import pytest

from kumodr.ledger.database import open_database


def test_a_query_that_is_interrupted_ends_as_an_interrupt() -> None:
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt), open_database([]) as database:
        timer.start()
        database.value("SELECT sum(hash(range)) FROM range(4000000000)")
    timer.join()


def test_other_errors_pass() -> None:
    with pytest.raises(RuntimeError, match="something else"), open_database([]):
        raise RuntimeError("something else")
