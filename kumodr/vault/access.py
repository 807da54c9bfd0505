"""How an object store is reached: its provider's settings, and credentials from a file or the environment.

A credentials file is what the provider itself hands out: for S3 the file of the AWS command line
(`[default]`, `aws_access_key_id`, `aws_secret_access_key`, `aws_session_token`), for Google the service account's JSON,
for Azure an INI file (`account_name`, and `account_key` or `sas_token`, or `tenant_id`, `client_id`, `client_secret`).
A secret never reaches a message, an argument or an address.
"""

import configparser
import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

from kumodr import errors
from kumodr.plan.model import VaultPlan

_LARGEST = 1 << 20
_AZURE_KEYS = {
    "account_name": "account_name",
    "account_key": "account_key",
    "sas_token": "sas_key",
    "tenant_id": "tenant_id",
    "client_id": "client_id",
    "client_secret": "client_secret",
}


@dataclass(frozen=True)
class Keys:
    """What signs requests to S3. It has no text of its own, so that none of it is ever printed."""

    key: str
    secret: str
    token: str | None

    def __repr__(self) -> str:
        return "Keys(…)"


def endpoint_of(where: VaultPlan, environment: Mapping[str, str] = os.environ) -> str | None:
    """Given where a vault is, return the address that requests go to; None where the provider's own is meant.

    Raise UsageWrong where it is without TLS and that is not asked for, or holds a secret.
    """
    kind = urlsplit(where.url).scheme
    variables = {
        "s3": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"),
        "az": ("AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT"),
    }
    named = [environment[each] for each in variables.get(kind, ()) if environment.get(each)]
    found = where.endpoint or (named[0] if named else None)
    if kind == "s3" and environment.get("AWS_ENDPOINT_URL_S3") not in (None, "", found):
        raise errors.UsageWrong(
            f"AWS_ENDPOINT_URL_S3 in the environment would win over the endpoint {found}",
            remedy="take it out of the environment",
        )
    if found is None:
        return None
    parts = urlsplit(found)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.password:
        raise errors.UsageWrong(
            "the vault's endpoint is no address of a server", remedy="write it like https://s3.example.org:9000"
        )
    if parts.scheme == "http" and not http_allowed(where, environment):
        raise errors.UsageWrong(
            f"the vault's endpoint {found} has no TLS: whoever is in between could change what is answered",
            remedy="use https://, or set vault.allow_http: true (AWS_ALLOW_HTTP=true) where the network is trusted",
        )
    return found.rstrip("/")


def http_allowed(where: VaultPlan, environment: Mapping[str, str] = os.environ) -> bool:
    """Whether it was asked for that requests may go without TLS."""
    return where.allow_http or environment.get("AWS_ALLOW_HTTP", "").lower() in ("true", "1")


def client_options(where: VaultPlan) -> dict[str, Any]:
    """Given where a vault is, return how its HTTP client behaves: it never waits without end."""
    options: dict[str, Any] = {
        "connect_timeout": timedelta(seconds=min(10.0, where.timeout)),
        "timeout": timedelta(seconds=where.timeout),
        "allow_http": http_allowed(where),
    }
    if where.certificate_file is not None:
        options["root_certificate"] = _text(where.certificate_file, "certificate", secret=False)
    return options


def s3_keys(where: VaultPlan, environment: Mapping[str, str] = os.environ) -> Keys | None:
    """Given where a vault is, return the keys from its file or else the environment; None where a role gives them.

    Raise CredentialsMissing, CredentialsOpen.
    """
    if where.credentials_file is not None:
        profile = _profile(where.credentials_file, environment.get("AWS_PROFILE", "default"))
        try:
            return Keys(
                profile["aws_access_key_id"], profile["aws_secret_access_key"], profile.get("aws_session_token")
            )
        except KeyError as error:
            raise errors.CredentialsMissing(f"{where.credentials_file} has no {error.args[0]}") from None
    key, secret = environment.get("AWS_ACCESS_KEY_ID"), environment.get("AWS_SECRET_ACCESS_KEY")
    return Keys(key, secret, environment.get("AWS_SESSION_TOKEN")) if key and secret else None


def google_config(where: VaultPlan) -> dict[str, Any]:
    """Given where a vault is, return what opens it at Google, beside the environment. Raise CredentialsOpen."""
    if where.credentials_file is None:
        return {}
    return {"service_account_key": _text(where.credentials_file, "credentials")}


def azure_config(where: VaultPlan) -> dict[str, Any]:
    """Given where a vault is, return what opens it at Azure, beside the environment. Raise CredentialsOpen."""
    config: dict[str, Any] = {}
    if where.credentials_file is not None:
        profile = _profile(where.credentials_file, "default")
        config = {_AZURE_KEYS[key]: value for key, value in profile.items() if key in _AZURE_KEYS}
        if not config:
            raise errors.CredentialsMissing(f"{where.credentials_file} has none of {', '.join(_AZURE_KEYS)}")
    endpoint = endpoint_of(where)
    return config | ({"endpoint": endpoint} if endpoint else {})


def _profile(path: str, wanted: str) -> dict[str, str]:
    parser = configparser.RawConfigParser(default_section="\0", interpolation=None)
    try:
        parser.read_string(_text(path, "credentials"))
    except configparser.Error:
        raise errors.CredentialsMissing(f"the credentials file {path} is no INI file") from None
    sections = parser.sections()
    name = wanted if wanted in sections else sections[0] if len(sections) == 1 else None
    if name is None:
        raise errors.CredentialsMissing(f"the credentials file {path} has no section [{wanted}]")
    return dict(parser[name])


def _text(path: str, what: str, *, secret: bool = True) -> str:
    """Return a file's text; one that holds a secret must not be readable by others, nor writable by its group."""
    try:
        with open(path, "rb") as file:
            status = os.fstat(file.fileno())
            if secret and stat.S_IMODE(status.st_mode) & 0o027:
                raise errors.CredentialsOpen(f"the credentials file {path} is open to others")
            return file.read(_LARGEST).decode()
    except OSError as error:
        raise errors.CredentialsMissing(f"the {what} file {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise errors.CredentialsMissing(f"the {what} file {path} is no text") from None
