"""The plan of a site of which nothing is left but the vault: it lies there with the configuration."""

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kumodr import errors
from kumodr.components.config import PLAN
from kumodr.lab.ports import free_ports
from kumodr.recover.choose import choose
from kumodr.source import Progress
from kumodr.vault.fetch import fetch
from kumodr.vault.keys import Identities
from kumodr.vault.open import Vault
from kumodr.vault.points import survey

_LARGEST = 1 << 20


def plan_for(vault: Vault, url: str, identities: Identities, directory: Path, progress: Progress) -> bytes:
    """Given a vault, the address that it is reached at, and where kumodr's own files go on this machine, return the
    newest stored plan for use here, as YAML.

    Paths are those of the lost host, but for kumodr's state. A lab of processes moves to the directory as a whole.
    Raise PointMissing where the vault holds no configuration, PlanMissing where that holds no plan.
    """
    section = choose(survey(vault, identities.pins).points, components=("config",))[0].section
    with tempfile.TemporaryDirectory(prefix="kumodr-plan-") as folder:
        fetch(vault, section, identities, Path(folder, "config"), progress)
        try:
            with open(Path(folder, "config", PLAN), "rb") as file:
                values: Any = json.loads(file.read(_LARGEST))
        except FileNotFoundError:
            raise errors.PlanMissing(
                "the configuration in the vault holds no plan: an older kumodr stored it",
                remedy="restore with `kumodr restore --component config`, and name the plan that is in it with --plan",
            ) from None
        except (ValueError, RecursionError) as error:
            raise errors.ComponentDamaged(f"the plan in the vault is damaged: {error}") from error
    here = _moved(values, directory) if values.get("runtime", {}).get("kind") == "process" else values
    kept = {key: each for key, each in here["vault"].items() if not key.endswith("_file") or Path(str(each)).exists()}
    return _yaml(here | {"vault": {**kept, "url": url}, "state": str(directory / "state")})


def _moved(values: Mapping[str, Any], directory: Path) -> dict[str, Any]:
    """Return the plan of a lab with its directory replaced, and addresses that are free here."""
    old = str(values["runtime"]["directory"])

    def at(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: at(each) for key, each in value.items()}
        if isinstance(value, list):
            return [at(each) for each in value]
        if isinstance(value, str) and (value == old or value.startswith(f"{old}/")):
            return str(directory) + value[len(old) :]
        return value

    here = at(dict(values))
    smtp, http, redis, prometheus = free_ports(4)
    here["kumod"] |= {"smtp": f"127.0.0.1:{smtp}", "http": f"http://127.0.0.1:{http}"}
    if here["components"].get("redis"):
        here["components"]["redis"]["url"] = f"redis://127.0.0.1:{redis}"
    if here["components"].get("prometheus"):
        here["components"]["prometheus"]["url"] = f"http://127.0.0.1:{prometheus}"
    return here


def _yaml(values: Mapping[str, Any]) -> bytes:
    import yaml

    head = "# The plan as it was in the vault. Where it names what is other on this machine, correct it.\n"
    return (head + yaml.safe_dump(_without_nothing(values), sort_keys=False, allow_unicode=True)).encode()


def _without_nothing(values: Any) -> Any:
    """Return the values without keys that hold nothing: they have their defaults."""
    if isinstance(values, Mapping):
        return {key: _without_nothing(each) for key, each in values.items() if each is not None}
    return [_without_nothing(each) for each in values] if isinstance(values, list) else values
