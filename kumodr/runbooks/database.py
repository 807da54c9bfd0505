"""DBOS, as far as runs need it: parts whose results are recorded, in SQLite or Postgres.

A run is one workflow, its id the run's. Executor and application version are the run's id too: what DBOS takes up again
when it is launched is then this run and no other, however many controllers share a database. The workflow's body comes
to life in a thread of DBOS and hands itself over to the main thread, where Ctrl-C and the step's time limit arrive.
What ends the body without a result (`Stopped`, an interrupt) is no `Exception`, so DBOS records nothing, and the run
stands as if the command had been killed: there is one way to resume, and it is the tested one.

Values are kept as JSON; what claims to be a pickle is refused. Nothing is sent anywhere: DBOS's own cloud and console
are used only where variables named DBOS__… say so, and those are taken away.
"""

import contextvars
import json
import logging
import os
import queue
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from time import monotonic, sleep
from typing import Any

from kumodr import errors
from kumodr.runbooks.engine import Durably
from kumodr.runbooks.state import State

_NAME = "kumodr"
_LIMIT = 60.0
_POLL = 0.02
_SELDOM = 60.0
Body = Callable[[Mapping[str, Any], Durably], dict[str, Any]]
"""Given what the run was asked and the way to run parts durably, goes through it."""


@dataclass(frozen=True)
class Recorded:
    """A run as the database has it. `ended` is "done", "aborted", "broken" (a bug) or None; `parts` are the entries."""

    run: str
    request: Mapping[str, Any]
    ended: str | None
    result: Mapping[str, Any] | None
    parts: Mapping[str, Mapping[str, Any]]


class _Json:
    """Values of the database: JSON, bounded by what the engine gives."""

    def name(self) -> str:
        return "kumodr_json"

    def serialize(self, data: Any) -> str:
        return json.dumps(data, default=repr)

    def deserialize(self, serialized_data: str) -> Any:
        return json.loads(serialized_data)


def execute(state: State, run: str, request: Mapping[str, Any] | None, body: Body) -> dict[str, Any]:
    """Given a new run and what is asked (None: take it up again), run its body in this thread and return its result.

    What the body raises goes through. Raise StateUnavailable where the database cannot be used.
    """
    with _launched(state, run) as (dbos, tasks):
        from dbos import SetWorkflowID

        if request is not None:
            with SetWorkflowID(run):
                dbos.start_workflow(dbos.runbook, dict(request))
        try:
            context, asked, future = tasks.get(timeout=_LIMIT)
            dbos.look_every(_SELDOM)
        except queue.Empty:
            raise errors.StateUnavailable(f"the database did not give out {run} within {_LIMIT:g} s") from None
        try:
            result = context.run(body, asked, dbos.durably)
        except BaseException as error:
            future.set_exception(error)
            raise
        future.set_result(result)
        deadline = monotonic() + _LIMIT
        while dbos.status(run) == "PENDING":
            if monotonic() > deadline:
                raise errors.StateUnavailable(f"the end of {run} could not be recorded")
            sleep(_POLL)
        return result


class _Dbos:
    """The few parts of DBOS that are used, loosely typed."""

    def __init__(self, dbos: Any, runbook: Any) -> None:
        self._dbos, self.runbook = dbos, runbook

    def start_workflow(self, workflow: Any, document: dict[str, Any]) -> None:
        self._dbos.start_workflow(workflow, document)

    def look_every(self, seconds: float) -> None:
        """How often DBOS looks whether there is a run to take up; there is no public way for this queue of its own."""
        self._dbos._registry.get_internal_queue()._polling_interval_sec = seconds

    def durably(self, name: str, part: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        return self._dbos.run_step({"name": name}, part)

    def status(self, run: str) -> str:
        found = self._dbos.get_workflow_status(run)
        return "missing" if found is None else found.status


Task = tuple[contextvars.Context, Mapping[str, Any], "Future[dict[str, Any]]"]


@contextmanager
def _launched(state: State, run: str) -> Generator[tuple[_Dbos, "queue.SimpleQueue[Task]"]]:
    tasks: queue.SimpleQueue[Task] = queue.SimpleQueue()
    library = _library()

    def runbook(document: dict[str, Any]) -> dict[str, Any]:
        future: Future[dict[str, Any]] = Future()
        tasks.put((contextvars.copy_context(), document, future))
        return future.result()

    state.prepare()
    config = {
        "name": _NAME,
        "system_database_url": state.address,
        "executor_id": run,
        "application_version": run,
        "serializer": _Json(),
        "log_level": "CRITICAL",
        "enable_otlp": False,
        "use_listen_notify": False,
        "notification_listener_polling_interval_sec": 0.2,
        "scheduler_polling_interval_sec": 3600.0,
        "sys_db_pool_size": 4,
    }
    library.DBOS.destroy(destroy_registry=True)
    with _named_errors(state):
        instance = library.DBOS(config=config)
    try:
        dbos = _Dbos(instance, library.DBOS.workflow(name="runbook", max_recovery_attempts=None)(runbook))
        dbos.look_every(_POLL)
        with _named_errors(state):
            library.DBOS.launch()
        yield dbos, tasks
    finally:
        library.DBOS.destroy(destroy_registry=True)


def recorded(state: State, run: str | None = None, limit: int = 100) -> list[Recorded]:
    """Given where runs are kept, return those of its site, the newest first; or only the one that is named."""
    if not state.exists:
        return []
    library = _library()
    with _named_errors(state):
        client = library.DBOSClient(
            system_database_url=state.address, serializer=_Json(), application_name=_NAME, retry_connection_errors=False
        )
        try:
            found = client.list_workflows(
                name="runbook", workflow_ids=[run] if run else None, sort_desc=True, limit=None if run else limit
            )
            return [
                _recorded(each, client.list_workflow_steps(each.workflow_id))
                for each in found
                if each.input is not None and each.input["args"][0]["site"] == state.site
            ]
        finally:
            client.destroy()


def give_up(state: State, run: str) -> None:
    """Given a run that nobody works on, record that it is given up; it cannot be resumed."""
    library = _library()
    with _named_errors(state):
        client = library.DBOSClient(system_database_url=state.address, serializer=_Json(), application_name=_NAME)
        try:
            client.cancel_workflow(run)
        finally:
            client.destroy()


def _recorded(status: Any, steps: list[Any]) -> Recorded:
    ended = {"SUCCESS": "done", "CANCELLED": "aborted", "ERROR": "broken"}.get(status.status)
    parts = {each["function_name"]: each["output"] for each in steps if isinstance(each["output"], dict)}
    return Recorded(status.workflow_id, status.input["args"][0], ended, status.output, parts)


def _library() -> Any:
    """Import DBOS, told to keep quiet and to itself."""
    for name in [name for name in os.environ if name.startswith("DBOS_")]:
        del os.environ[name]
    logger = logging.getLogger("dbos")
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())
    logger.propagate = False
    import dbos
    from dbos import _serialization  # pyright: ignore[reportPrivateUsage] # there is no other way to refuse pickles

    pickles: Any = _serialization.DefaultSerializer

    def refuse(*_: Any, **_words: Any) -> Any:
        raise ValueError("a pickle is not read")

    pickles.deserialize = refuse
    return dbos


@contextmanager
def _named_errors(state: State) -> Generator[None]:
    """Turn what the database's libraries raise into a named error; it never shows a password."""
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except errors.KumodrError:
        raise
    except (SQLAlchemyError, OSError) as error:
        where = state.address.rpartition("@")[2] if state.is_shared else state.address.removeprefix("sqlite:///")
        reason = str(getattr(error, "orig", None) or error).splitlines()[0]
        raise errors.StateUnavailable(f"the database of runs at {where} cannot be used: {reason}") from None
