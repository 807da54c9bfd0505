"""How a lab site in containers comes to be: laid out anew, or made of what `kumodr restore` brought back."""

import json
import os
import secrets
import shutil
import socket
import uuid
from collections.abc import Callable
from pathlib import Path

from kumodr import errors
from kumodr.clock import system_clock
from kumodr.durable import write_file
from kumodr.lab.compose.images import Images, ensure_images
from kumodr.lab.compose.project import read_environment, write_environment, write_project
from kumodr.lab.compose.site import ComposeSite, open_compose
from kumodr.lab.options import Options
from kumodr.lab.ports import free_ports
from kumodr.runtimes.commands import run
from kumodr.runtimes.docker_errors import named

_PORTS = ("KUMO_SMTP_PORT", "KUMO_HTTP_PORT", "KUMO_REDIS_PORT", "KUMO_PROMETHEUS_PORT")
_SLOW = 600.0

_FILL = """
for each in /to/*; do
    [ -z "$(ls -A "$each")" ] || { echo "the volume of $each is not empty" >&2; exit 1; }
done
for each in /from/*; do
    cp -a "$each/." "/to/$(basename "$each")/"
done
chown -R "$1" /to/spool /to/logs /to/prometheus-data
chown -R redis:redis /to/redis-data
find /to/spool /to/logs -type d -exec chmod g+rwxs {} +
"""
"""Directories of spool and logs are open to kumod's group, as its packages have them (facts §13.10)."""


def create_compose(directory: Path, options: Options, *, vault: str | None, say: Callable[[str], None]) -> ComposeSite:
    """Given a directory without a site, make the images where they are missing, and lay a site out.

    Raise TargetNotEmpty where there is a site, LabFailed, Docker's errors.
    """
    _must_be_free(directory)
    images = ensure_images(say, run)
    place = _vault_directory(vault, directory)
    ports = dict(zip(_PORTS, map(str, free_ports(len(_PORTS))), strict=True))
    environment = {"KUMO_NODE_ID": str(uuid.uuid4()), **ports, **_surroundings(directory, options, images, place)}
    write_project(directory / "site", options, environment)
    return _with_world(directory, options, images, place)


def adopt_compose(directory: Path, restored: Path, *, say: Callable[[str], None]) -> ComposeSite:
    """Given a lab directory whose site is gone and what `kumodr restore` brought back, make a site of it.

    The restored project is taken as it is; only what depends on this host is said anew: images, ports that are taken,
    folders. The volumes are filled from the restored folders, before any server is started. Raise LabMissing,
    TargetNotEmpty, LabFailed, Docker's errors.
    """
    _must_be_free(directory)
    project = restored_project(restored)
    if project is None:
        raise errors.LabMissing(f"{restored} holds no configuration of a lab site in containers")
    images = ensure_images(say, run)
    shutil.copytree(project, directory / "site")
    # A restored folder is closed to others; containers read the project as other users.
    (directory / "site").chmod(0o755)
    known = read_environment(directory / "site")
    taken = [name for name in _PORTS if not _is_free(int(known[name]))]
    fresh = dict(zip(taken, map(str, free_ports(len(taken))), strict=True))
    place = _vault_directory(known["VAULT_DIRECTORY"], directory)
    write_environment(directory / "site", {**known, "COMPOSE_PROJECT_NAME": _project_name(directory)})
    options = open_compose(directory).options
    write_environment(directory / "site", {**known, **fresh, **_surroundings(directory, options, images, place)})
    site = _with_world(directory, options, images, place)
    site.runtime.up(site.names(), started=False)
    _fill(site, restored, images)
    return site


def restored_project(restored: Path) -> Path | None:
    """Given what `kumodr restore` brought back, return the folder of the compose project of a lab in it, or None."""
    found = [path.parent for path in (restored / "config").rglob("lab.json")]
    return next((folder for folder in found if (folder / "docker-compose.yml").is_file()), None)


def _must_be_free(directory: Path) -> None:
    if (directory / "site").exists():
        raise errors.TargetNotEmpty(
            f"there is a lab site at {directory}", remedy="use it, or `kumodr lab down --remove`"
        )


def _surroundings(directory: Path, options: Options, images: Images, vault: Path) -> dict[str, str]:
    """Return the variables of `.env` that depend on this host."""
    user = group = "1000"
    if options.kumod_image:
        user, group = (_docker("run", *_ONCE, "id", options.kumod_image, flag, "kumod") for flag in ("-u", "-g"))
    return {
        "COMPOSE_PROJECT_NAME": _project_name(directory),
        "KUMO_IMAGE": options.kumod_image or images.kumodr,
        "KUMO_UID": user,
        "KUMO_GID": group,
        "REDIS_IMAGE": images.redis,
        "PROMETHEUS_IMAGE": images.prometheus,
        "SINK_IMAGE": images.kumodr,
        "SINK_USER": f"{os.getuid()}:{os.getgid()}",
        "KUMODR_IMAGE": images.kumodr,
        "VAULT_DIRECTORY": str(vault),
    }


def _project_name(directory: Path) -> str:
    """Return the name by which this lab's containers and volumes are known; it stays when the site is wiped."""
    file = directory / "world" / "world.json"
    try:
        return str(json.loads(file.read_text())["project"])
    except (OSError, ValueError, KeyError):
        name = f"lab-{secrets.token_hex(4)}"
        file.parent.mkdir(parents=True, exist_ok=True)
        write_file(file, json.dumps({"project": name}).encode())
        return name


def _with_world(directory: Path, options: Options, images: Images, vault: Path) -> ComposeSite:
    site = open_compose(directory)
    if not (site.world / "control.json").exists():
        site.sink_rules(mode="rules")
    if options.sidecar:
        _make_vault(site, vault, images)
    return site


def _vault_directory(vault: str | None, directory: Path) -> Path:
    if vault and "://" in vault:
        raise errors.UsageWrong("the lab's sidecar keeps its vault in a directory", remedy="give --vault a directory")
    return Path(vault).absolute() if vault else directory / "vault"


def _make_vault(site: ComposeSite, place: Path, images: Images) -> None:
    """Make the vault where there is none, its identity in DIR/keys, and let the sidecar's user write to it."""
    from kumodr.vault.keys import generate_identity, identity_text
    from kumodr.vault.open import MARKER, create_vault

    if not (place / MARKER).exists():
        identity = generate_identity()
        vault = create_vault(str(place), [identity.recipient], system_clock)
        keys = site.directory / "keys"
        keys.mkdir(mode=0o700, exist_ok=True)
        write_file(keys / "identity.txt", identity_text(identity, vault.id, {}).encode())
    known = read_environment(site.root)
    owner = f"{known['KUMO_UID']}:{known['KUMO_GID']}"
    _docker("run", *_ONCE, "chown", f"--volume={place}:/vault", images.kumodr, "-R", owner, "/vault")


def _fill(site: ComposeSite, restored: Path, images: Images) -> None:
    known = read_environment(site.root)
    sources = {"spool": "spool", "logs": "logs/1-kumomta", "redis-data": "redis", "prometheus-data": "prometheus"}
    mounts = [f"--volume={site.runtime.volume(each)}:/to/{each}" for each in sources]
    for name, path in sources.items():
        if (restored / path).is_dir():
            mounts.append(f"--volume={restored / path}:/from/{name}:ro")
    words = ["-e", "-c", _FILL, "fill", f"{known['KUMO_UID']}:{known['KUMO_GID']}"]
    _docker("run", *_ONCE, "/bin/sh", *mounts, images.kumodr, *words)


_ONCE = ("--rm", "--network=none", "--user=0:0", "--entrypoint")
"""How a container is run for one command as root, without a network."""


def _docker(*words: str) -> str:
    answer = run(["docker", *words], limit=_SLOW)
    if answer.code:
        raise named(answer.err.decode(errors="replace"), "the lab")
    return answer.out.decode().strip()


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
