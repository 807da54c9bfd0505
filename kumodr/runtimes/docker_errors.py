"""What Docker and its compose tool say on failure, as kumodr's errors."""

from kumodr import errors

_FORBIDDEN = "Docker's socket may not be used by this user"
_SIGNS: tuple[tuple[tuple[str, ...], type[errors.KumodrError], str], ...] = (
    (("permission denied", "docker daemon socket"), errors.DockerForbidden, _FORBIDDEN),
    (("permission denied", "docker api"), errors.DockerForbidden, _FORBIDDEN),
    (("connection aborted", "permissionerror"), errors.DockerForbidden, _FORBIDDEN),
    (("cannot connect to the docker daemon",), errors.DockerStopped, "the Docker daemon does not answer"),
    (("couldn't connect to docker daemon",), errors.DockerStopped, "the Docker daemon does not answer"),
    (("error while fetching server api version",), errors.DockerStopped, "the Docker daemon does not answer"),
    (("port is already allocated",), errors.PortTaken, "a port that {0} publishes is taken"),
    (("address already in use",), errors.PortTaken, "a port that {0} publishes is taken"),
    (("no space left on device",), errors.DiskFull, "no space is left where {0} writes"),
    (("uses an undefined",), errors.ComposeInvalid, "the compose project does not define what {0} uses"),
    (("refers to undefined",), errors.ComposeInvalid, "the compose project does not define what {0} uses"),
    (("no such service",), errors.ServiceMissing, "the compose project has no service {0!r}"),
)


def named(text: str, service: str) -> errors.KumodrError:
    """Given what was printed on failure, return the error to raise: ServiceFailed where it is none of the known."""
    lower = text.lower()
    for signs, kind, what in _SIGNS:
        if all(sign in lower for sign in signs):
            return kind(what.format(service))
    lines = [line for line in text.strip().splitlines() if not line.startswith("Encountered errors")]
    last = lines[-1] if lines else "no reason given"
    return errors.ServiceFailed(f"Docker refused for {service}: {last.strip()[:300]}")
