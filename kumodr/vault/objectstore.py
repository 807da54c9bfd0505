"""A store on obstore: in memory, S3-compatible, GCS or Azure. Credentials come from the environment."""

from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit

from kumodr import errors
from kumodr.vault.store import Entry, Piece

_IN_MEMORY: dict[str, Any] = {}
"""`memory://NAME` means the same store throughout a process."""


def open_object_store(url: str) -> "ObjectStore":
    """Given an address, return its store. Raise UsageWrong where obstore does not know it."""
    from obstore.exceptions import BaseError
    from obstore.store import MemoryStore, from_url

    parts = urlsplit(url)
    if parts.password or parts.username:
        raise errors.UsageWrong("the vault address holds a secret", remedy="give credentials by environment variables")
    if parts.scheme == "memory":
        return ObjectStore(_IN_MEMORY.setdefault(url, MemoryStore()), url)
    try:
        return ObjectStore(from_url(url), url)
    except (BaseError, ValueError) as error:
        raise errors.UsageWrong(f"the vault address {url} is not understood") from error


class ObjectStore:
    """Objects in an obstore store; `put_if_absent` is its conditional create."""

    def __init__(self, store: Any, address: str) -> None:
        self._store = store
        self._address = address

    @property
    def address(self) -> str:
        return self._address

    def put_if_absent(self, name: str, pieces: Sequence[Piece]) -> bool:
        """See Store."""
        import obstore
        from obstore.exceptions import AlreadyExistsError, BaseError

        try:
            obstore.put(self._store, name, b"".join(pieces), mode="create")
        except AlreadyExistsError:
            return False
        except (BaseError, OSError) as error:
            raise self._named(error, name) from error
        return True

    def get(self, name: str, limit: int) -> bytes:
        """See Store."""
        import obstore
        from obstore.exceptions import BaseError

        try:
            result = obstore.get(self._store, name)
            if result.meta["size"] > limit:
                raise errors.ObjectDamaged(
                    f"object {name} has {result.meta['size']} bytes, more than the {limit} it may have"
                )
            return bytes(result.bytes())
        except FileNotFoundError as error:
            raise errors.ObjectMissing(f"object {name} is missing from the vault at {self._address}") from error
        except (BaseError, OSError) as error:
            raise self._named(error, name) from error

    def start(self, name: str, length: int) -> tuple[bytes, int]:
        """See Store."""
        import obstore
        from obstore.exceptions import BaseError

        try:
            result = obstore.get(self._store, name, options={"range": (0, length)})
            return bytes(result.bytes()), result.meta["size"]
        except FileNotFoundError as error:
            raise errors.ObjectMissing(f"object {name} is missing from the vault at {self._address}") from error
        except (BaseError, OSError) as error:
            if self.size(name) == 0:  # no range lies in an empty object
                return b"", 0
            raise self._named(error, name) from error

    def size(self, name: str) -> int | None:
        """See Store."""
        import obstore
        from obstore.exceptions import BaseError

        try:
            return obstore.head(self._store, name)["size"]
        except FileNotFoundError:
            return None
        except (BaseError, OSError) as error:
            raise self._named(error, name) from error

    def list(self, prefix: str) -> Iterator[str]:
        """See Store."""
        return (entry.name for entry in self.entries(prefix))

    def entries(self, prefix: str) -> Iterator[Entry]:
        """See Store."""
        import obstore
        from obstore.exceptions import BaseError

        try:
            for batch in obstore.list(self._store, prefix=prefix or None):
                for found in batch:
                    yield Entry(found["path"], found["size"], found["last_modified"])
        except (BaseError, OSError) as error:
            raise self._named(error, prefix) from error

    def delete(self, names: Sequence[str]) -> None:
        """See Store."""
        import obstore
        from obstore.exceptions import BaseError

        for name in names:
            try:
                obstore.delete(self._store, name)
            except FileNotFoundError:
                continue
            except (BaseError, OSError) as error:
                raise self._named(error, name) from error

    def _named(self, error: Exception, name: str) -> errors.KumodrError:
        from obstore.exceptions import PermissionDeniedError, UnauthenticatedError

        if isinstance(error, (PermissionDeniedError, UnauthenticatedError)):
            return errors.StoreReadOnly(f"the vault at {self._address} refuses {name}")
        return errors.StoreUnavailable(f"the vault at {self._address} fails with {name}: {type(error).__name__}")
