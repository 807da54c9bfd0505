"""Options and openings that several verbs share."""

import argparse
import os
import re
from collections.abc import Sequence
from datetime import datetime, timedelta

from kumodr import errors
from kumodr.clock import Clock
from kumodr.plan.model import Plan, VaultPlan
from kumodr.vault.keys import Identities, load_identities
from kumodr.vault.open import Vault, open_vault

_RELATIVE = re.compile(r"(?:now)?-(\d{1,9}(?:\.\d{1,6})?)([smhd])")
CREDENTIALS_FILE = "KUMODR_VAULT_CREDENTIALS_FILE"
"""The variable that names the credentials file of a vault that is named on the command line."""

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def add_vault_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--vault", metavar="URL", help="the vault's address (default: the plan's); needs no plan")


def add_identity_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--identity",
        metavar="FILE",
        help="file with the age identity (default: $KUMODR_IDENTITY_FILE or $KUMODR_IDENTITY)",
    )


def plan_if_any(arguments: argparse.Namespace) -> Plan | None:
    """Return the plan, or None where none is needed because the vault is named and no plan is."""
    from kumodr.plan.load import load_plan

    if arguments.plan is None and getattr(arguments, "vault", None):
        try:
            return load_plan(None)
        except errors.PlanMissing:
            return None
    return load_plan(arguments.plan)


def vault_of(arguments: argparse.Namespace, plan: Plan | None) -> Vault:
    """Open the vault that is named on the command line, else the plan's."""
    return open_vault(where_of(arguments, plan))


def where_of(arguments: argparse.Namespace, plan: Plan | None) -> VaultPlan:
    """Return where the vault is that is named on the command line, else the plan's; its settings come with the plan's
    address, or for another address from the environment.
    """
    url = getattr(arguments, "vault", None)
    if plan is not None and (url is None or url.removeprefix("file://") == plan.vault.url.removeprefix("file://")):
        return plan.vault
    if url is None:
        raise errors.UsageWrong("no vault is named", remedy="give --vault URL, or a plan that names one")
    return VaultPlan(url, credentials_file=os.environ.get(CREDENTIALS_FILE) or None)


def identities_of(arguments: argparse.Namespace) -> Identities:
    """Load the identity that opens the vault, from the file named or the environment."""
    return load_identities(arguments.identity, os.environ)


def with_relative_times(words: Sequence[str]) -> list[str]:
    """Given the words of a command line, write `-5m` as `now-5m`, so that it is not taken for an option."""
    return [f"now{word}" if _RELATIVE.fullmatch(word) else word for word in words]


def time_wanted(text: str | None, clock: Clock) -> datetime | None:
    """Given `--at`, return the aware time, None for the latest state. A time without a zone is in this machine's.

    `-5m` is five minutes ago; s, m, h and d are known. Raise UsageWrong.
    """
    if text is None or text == "latest":
        return None
    try:
        relative = _RELATIVE.fullmatch(text)
        if relative:
            return clock() - timedelta(seconds=float(relative[1]) * _SECONDS[relative[2]])
        return datetime.fromisoformat(text).astimezone(clock().tzinfo)
    except (ValueError, OverflowError) as error:
        raise errors.UsageWrong(
            f"--at {text!r} is no time", remedy="write it like '2026-11-23 14:03:07+01:00', latest, or -5m"
        ) from error


def component_names(asked: list[str], plan: Plan) -> tuple[str, ...]:
    """Given the names on the command line (none: all), return those that the plan has. Raise UsageWrong for others."""
    from kumodr.components.registry import configured

    have = configured(plan)
    for name in asked:
        if name not in have:
            raise errors.UsageWrong(f"the plan has no component {name!r}", remedy=f"choose from: {', '.join(have)}")
    return tuple(asked) or have
