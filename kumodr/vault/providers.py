"""Which object store an address means, opened with its settings and credentials."""

from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from kumodr import errors
from kumodr.plan.model import VaultPlan
from kumodr.vault.access import Keys, azure_config, client_options, endpoint_of, google_config, s3_keys
from kumodr.vault.objectstore import ObjectStore
from kumodr.vault.patience import ONCE, Patience

_IN_MEMORY: dict[str, Any] = {}
"""`memory://NAME` means the same store throughout a process."""

KINDS = ("s3", "gs", "az")
PATIENCE = Patience()


def open_object_store(where: VaultPlan, patience: Patience = PATIENCE) -> ObjectStore:
    """Given where a vault is, return its store; nothing is asked of it yet.

    Raise UsageWrong where the address means none, CredentialsMissing, CredentialsOpen.
    """
    from obstore.exceptions import BaseError
    from obstore.store import MemoryStore

    parts = urlsplit(where.url)
    if parts.password or parts.username:
        raise errors.UsageWrong(
            "the vault address holds a secret", remedy="give credentials by environment variables, or in a file"
        )
    if parts.scheme == "memory":
        store = _IN_MEMORY.setdefault(where.url, MemoryStore())
        return ObjectStore(store, store, where.url, patience)
    if parts.scheme not in KINDS or not parts.netloc:
        raise errors.UsageWrong(
            f"the vault address {where.url} is not understood",
            remedy="write a path, or s3://bucket/prefix, gs://bucket/prefix, az://container/prefix",
        )
    endpoint = endpoint_of(where)
    try:
        store, once = (_opened(where, parts.scheme, endpoint, retry) for retry in (patience.config(), ONCE))
    except (BaseError, ValueError, TypeError) as error:
        raise errors.UsageWrong(
            f"the vault address {where.url} cannot be opened with these settings",
            remedy=_HINTS[parts.scheme],
        ) from error
    return ObjectStore(store, once, f"{where.url} ({endpoint})" if endpoint else where.url, patience)


_HINTS = {
    "s3": "check vault.endpoint, vault.region and the credentials",
    "gs": "check that the credentials file is a service account's JSON, as Google hands it out",
    "az": "give the storage account: account_name in the credentials file, or AZURE_STORAGE_ACCOUNT_NAME",
}


def _opened(where: VaultPlan, kind: str, endpoint: str | None, retry: Any) -> Any:
    from obstore.store import AzureStore, GCSStore, S3Store

    options: Any = client_options(where)
    if kind == "gs":
        google: Any = google_config(where)
        return GCSStore.from_url(where.url, config=google, client_options=options, retry_config=retry)
    if kind == "az":
        azure: Any = azure_config(where)
        return AzureStore.from_url(where.url, config=azure, client_options=options, retry_config=retry)
    config: Any = {
        "virtual_hosted_style_request": where.addressing == "virtual",
        # Deletes go one by one (see ObjectStore.delete), and not every store knows the other way.
        "disable_bulk_delete": True,
        # A bucket under object lock takes no put without; the hash is made for the signature anyway.
        "checksum_algorithm": "SHA256",
    }
    if where.region is not None:
        config["region"] = where.region
    if endpoint is not None:
        config["endpoint"] = endpoint
    # All of them from the file: a session token of the environment must not come with them.
    provider: Any = _fixed(s3_keys(where)) if where.credentials_file is not None else None
    return S3Store.from_url(
        where.url, config=config, client_options=options, retry_config=retry, credential_provider=provider
    )


def _fixed(keys: Keys | None) -> Callable[[], Any]:
    assert keys is not None  # noqa: S101 — a file has them, or reading it raises
    return lambda: {
        "access_key_id": keys.key,
        "secret_access_key": keys.secret,
        "token": keys.token,
        "expires_at": None,
    }
