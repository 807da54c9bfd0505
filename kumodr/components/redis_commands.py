"""Commands to a Redis server: over the network, or by redis-cli inside its container. Passwords are in no argument."""

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

from kumodr import errors
from kumodr.plan.model import RedisPlan
from kumodr.runtimes.protocol import Runtime

_CONNECT = 5.0
_CLI = (
    'IFS= read -r REDISCLI_AUTH || :; [ -z "$REDISCLI_AUTH" ] || export REDISCLI_AUTH; exec redis-cli "$@" </dev/null'
)
"""The password comes as the first line of standard input, and goes on in the environment of redis-cli alone."""

_REFUSALS = ("ERR ", "NOAUTH", "WRONGPASS", "NOPERM", "LOADING", "BUSY", "MISCONF", "Could not connect", "Error:")


class Refused(Exception):
    """The server's own answer to a command that it does not do."""


class Commands(Protocol):
    """What a server is asked through."""

    def ask(self, *words: str) -> str:
        """Given a command, return the answer as text, the parts of a list each on a line. Raise Refused."""
        ...


def information(commands: Commands, section: str) -> Mapping[str, str]:
    """Given a section of INFO, return its fields."""
    lines = commands.ask("INFO", section).splitlines()
    return {name: value for name, mark, value in (line.partition(":") for line in lines) if mark}


def setting(commands: Commands, name: str) -> str | None:
    """Given a name of the configuration, return its value, None where this version knows none."""
    name_and_value = commands.ask("CONFIG", "GET", name).splitlines()
    return "\n".join(name_and_value[1:]) if name_and_value else None


def keys(commands: Commands) -> int:
    """Return how many keys all databases hold."""
    fields = information(commands, "keyspace").values()
    return sum(int(part.removeprefix("keys=")) for each in fields for part in each.split(",") if part[:5] == "keys=")


@contextmanager
def network(plan: RedisPlan, password: str | None) -> Generator[Commands]:
    """Given the plan and the password, hold a connection. Raise ComponentUnavailable, also later."""
    import redis

    options: dict[str, Any] = {"username": plan.username} if plan.username else {}
    if plan.url.startswith("rediss://"):
        named = {"ssl_ca_certs": plan.ca, "ssl_certfile": plan.certificate, "ssl_keyfile": plan.key}
        options |= {name: value for name, value in named.items() if value}
    try:
        with redis.Redis.from_url(
            plan.url,
            password=password,
            protocol=2,
            socket_timeout=plan.timeout,
            socket_connect_timeout=_CONNECT,
            **options,
        ) as server:
            yield of_server(server)
    except (redis.RedisError, Refused, ValueError, OSError) as error:
        raise unavailable(plan, error) from error


def of_server(server: Any) -> Commands:
    """Given a client of the library, return it as commands."""
    return _Network(server)


class _Network:
    def __init__(self, server: Any) -> None:
        self._server = server
        # Answers are taken as they come, as redis-cli gives them, so that both ways are read by the same code.
        self._server.response_callbacks.clear()

    def ask(self, *words: str) -> str:
        import redis

        try:
            answer = self._server.execute_command(*words)
        except redis.AuthenticationError:
            raise
        except redis.ResponseError as error:
            raise Refused(str(error)) from error
        return _text(answer)


@contextmanager
def inside(plan: RedisPlan, password: str | None, runtime: Runtime, service: str) -> Generator[Commands]:
    """Given the service that Redis is, run redis-cli in it. Raise ComponentUnavailable."""
    try:
        yield _Inside(plan, password, runtime, service)
    except Refused as error:
        raise unavailable(plan, error) from error


def cli_options(plan: RedisPlan) -> list[str]:
    """Given the plan, return what redis-cli must know beside the address; nothing secret."""
    words = ["--user", plan.username] if plan.username else []
    if plan.url.startswith("rediss://"):
        named = {"--cacert": plan.ca, "--cert": plan.certificate, "--key": plan.key}
        words += [word for name, value in named.items() if value for word in (name, value)]
    return words


class _Inside:
    def __init__(self, plan: RedisPlan, password: str | None, runtime: Runtime, service: str) -> None:
        self._runtime, self._service, self._plan = runtime, service, plan
        self._stdin = f"{password or ''}\n".encode()
        words = ["-u", plan.url, "--no-auth-warning", *cli_options(plan)]
        self._words = ["sh", "-c", _CLI, "redis-cli", *words]

    def ask(self, *words: str) -> str:
        answer = self._runtime.exec(
            self._service, [*self._words, *words], stdin=self._stdin, limit=self._plan.timeout + _CONNECT
        )
        out = answer.out.decode(errors="replace").replace("\r\n", "\n").removesuffix("\n")
        said = out or answer.err.decode(errors="replace").strip()
        if answer.code or out.startswith(_REFUSALS):
            raise Refused(said or f"redis-cli ended with {answer.code}")
        return out


def unavailable(plan: RedisPlan, error: Exception) -> errors.ComponentUnavailable:
    """Given what went wrong, return it as the error to raise; never with a password in it."""
    text = (str(error).splitlines() or [type(error).__name__])[0][:200]
    if any(sign in str(error) for sign in ("NOAUTH", "WRONGPASS", "invalid username-password", "Authentication")):
        text = "the password is wrong or missing"
    if "CERTIFICATE" in text.upper():
        return errors.ComponentUnavailable(
            f"redis at {plan.url} cannot be trusted: {text}", remedy="check ca, certificate and key of components.redis"
        )
    return errors.ComponentUnavailable(f"redis at {plan.url} cannot be used: {text}")


def _text(answer: Any) -> str:
    if isinstance(answer, bytes):
        return answer.decode(errors="replace").replace("\r\n", "\n")
    if isinstance(answer, (list, tuple)):
        return "\n".join(_text(part) for part in answer)  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    return str(answer)
