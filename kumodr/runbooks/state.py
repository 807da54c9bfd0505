"""Where the durable state of runs lies: an SQLite file in the plan's state directory, or a Postgres database."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from kumodr import errors
from kumodr.plan.model import Plan, RunbooksPlan

FILE = "runs.sqlite"
_LARGEST_PASSWORD = 4096


@dataclass(frozen=True)
class State:
    """The state directory of this host, the site, and the database's address, which may hold a password."""

    directory: Path
    site: str
    address: str = field(repr=False)

    @property
    def is_shared(self) -> bool:
        """Whether other hosts use the same database."""
        return not self.address.startswith("sqlite")

    @property
    def exists(self) -> bool:
        """Whether there is anything to read; nothing is made to find out."""
        return self.is_shared or (self.directory / FILE).exists()

    def prepare(self) -> None:
        """Make what is to be there before the first run, for this user only. Raise StateUnavailable."""
        try:
            self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            if not self.is_shared:
                os.close(os.open(self.directory / FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        except OSError as error:
            raise errors.StateUnavailable(f"runs cannot be kept in {self.directory}: {error.strerror}") from error


def state_of(plan: Plan, environment: Mapping[str, str] = os.environ) -> State:
    """Given a plan, return where its runs are kept. Raise StateUnavailable where the password cannot be read."""
    if plan.runbooks.state is None:
        return state_in(Path(plan.state), plan.site)
    return State(Path(plan.state), plan.site, _with_password(plan.runbooks, environment))


def state_in(directory: Path, site: str) -> State:
    """Given a directory and a site's name, return the state that is kept in a file there."""
    return State(directory, site, f"sqlite:///{directory / FILE}")


def _with_password(runbooks: RunbooksPlan, environment: Mapping[str, str]) -> str:
    from sqlalchemy import make_url

    url = make_url(str(runbooks.state)).set(drivername="postgresql+psycopg")
    password = _password(runbooks, environment)
    return (url.set(password=password) if password else url).render_as_string(hide_password=False)


def _password(runbooks: RunbooksPlan, environment: Mapping[str, str]) -> str | None:
    if runbooks.password_env is not None:
        if runbooks.password_env not in environment:
            raise errors.StateUnavailable(
                f"the variable {runbooks.password_env} with the database's password is not set", remedy="set it"
            )
        return environment[runbooks.password_env]
    if runbooks.password_file is None:
        return None
    try:
        with open(runbooks.password_file, encoding="utf-8") as file:
            return file.read(_LARGEST_PASSWORD).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise errors.StateUnavailable(
            f"the password file {runbooks.password_file} cannot be read: {error}", remedy="correct the plan"
        ) from error
