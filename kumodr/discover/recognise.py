"""Which service of a site is KumoMTA, Redis, Prometheus: by image, command, mounts, and name."""

import posixpath
import re
from collections.abc import Sequence

from kumodr import errors
from kumodr.discover.compose_services import Service

_OTHERS = re.compile(r"tsa-daemon|proxy-server|tailer|validate-shaping|exporter|sentinel|commander|insight")
_REDIS = re.compile(r"redis|valkey|keydb")
_KUMOD_NAMES = ("kumod", "kumomta")
_KUMOD_FOLDERS = ("/opt/kumomta", "/var/spool/kumomta")


def image_name(image: str) -> str:
    """Given an image like `ghcr.io/kumocorp/kumomta:latest`, return its bare name."""
    return re.split(r"[:@]", image.rpartition("/")[2])[0].lower()


def program(service: Service) -> str:
    """Given a service, return the name of the program that it runs, past a shell or an init; empty where not said."""
    passed = ("tini", "dumb-init", "sh", "bash", "exec", "-c", "--", "env", "gosu", "su-exec", "docker-entrypoint.sh")
    for word in " ".join(service.words).split():
        name = posixpath.basename(word)
        if name not in passed and not name.startswith("-"):
            return name.lower()
    return ""


def kumod_of(services: Sequence[Service], asked: str | None, where: str) -> Service:
    """Given a project's services and the one that was named, if any, return KumoMTA. Raise ServiceMissing."""
    if asked is not None:
        for each in services:
            if each.name == asked:
                return each
        raise errors.ServiceMissing(
            f"{where} has no service {asked!r}", remedy=f"choose from: {', '.join(each.name for each in services)}"
        )
    points = {each.name: _points(each) for each in services}
    best = max(points.values(), default=0)
    found = [each for each in services if points[each.name] == best and best > 0]
    if not found:
        names = ", ".join(each.name for each in services) or "none"
        remedy = f"name it with --service (there are: {names}), or switch its profile on with --profile"
        raise errors.ServiceMissing(f"no service in {where} is KumoMTA", remedy=remedy)
    if len(found) > 1:
        names = " and ".join(each.name for each in found)
        raise errors.ServiceMissing(f"{names} in {where} both look like KumoMTA", remedy="name one with --service")
    return found[0]


def redis_of(services: Sequence[Service]) -> tuple[Service, ...]:
    """Given the services, return those that are Redis, the likeliest first."""
    found = [each for each in services if _is(each, _REDIS)]
    return tuple(sorted(found, key=lambda each: each.name != "redis"))


def prometheus_of(services: Sequence[Service]) -> tuple[Service, ...]:
    """Given the services, return those that are Prometheus."""
    return tuple(each for each in services if _is(each, re.compile("prometheus")))


def is_kumodr(service: Service) -> bool:
    """Whether the service is kumodr itself, beside the mail server."""
    return image_name(service.image) == "kumodr" or program(service) == "kumodr"


def _is(service: Service, pattern: re.Pattern[str]) -> bool:
    if _OTHERS.search(f"{image_name(service.image)} {program(service)} {service.name}"):
        return False
    return any(pattern.search(each) for each in (image_name(service.image), program(service), service.name))


def _points(service: Service) -> int:
    """How much speaks for a service being KumoMTA: its command most, its image, its folders, its name."""
    words = " ".join(service.words)
    if _OTHERS.search(f"{words} {image_name(service.image)}"):
        return 0
    command = bool(re.search(r"(^|[/\s])kumod(\s|$)", words))
    image = image_name(service.image) in _KUMOD_NAMES
    folders = any(each.target.startswith(_KUMOD_FOLDERS) for each in service.mounts)
    name = service.name in _KUMOD_NAMES
    # Folders alone are no proof: what serves dashboards or ships logs may look into them too.
    return 4 * command + 3 * image + 2 * name + folders if command or image or name else 0
