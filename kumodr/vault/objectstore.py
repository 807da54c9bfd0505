"""A store on obstore: in memory, S3-compatible, GCS or Azure.

A put is one request, never a multipart upload: only so is "create, unless it is there" one decision of the store, and
objects are at most a few MiB. obstore repeats what changes nothing; a put is repeated here, because an answer that was
lost leaves a doubt: the repetition may meet the object of the first try. Then, and only then, what is there is compared
with what was put. Equal bytes are as good as ours, whoever put them: objects say all that they mean.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from kumodr import errors
from kumodr.vault.patience import Patience
from kumodr.vault.refusals import is_temporary, named, status_of, why_kept
from kumodr.vault.store import Entry, Piece

_PAGE = 1000
_DELETES = 8


class ObjectStore:
    """Objects in an obstore store; `once` is the same store where the client repeats nothing by itself.

    Where it is not `conditional`, a put looks first, puts, and reads back: right for one writer at a time only.
    """

    def __init__(
        self,
        store: Any,
        once: Any,
        address: str,
        patience: Patience,
        *,
        pause: Callable[[float], None] = time.sleep,
        conditional: bool = True,
    ) -> None:
        self._store = store
        self._once = once
        self._address = address
        self._patience = patience
        self._pause = pause
        self._conditional = conditional

    @property
    def address(self) -> str:
        return self._address

    def unconditional(self) -> "ObjectStore":
        """See Store."""
        return ObjectStore(self._store, self._once, self._address, self._patience, pause=self._pause, conditional=False)

    def put_if_absent(self, name: str, pieces: Sequence[Piece]) -> bool:
        """See Store."""
        import obstore
        from obstore.exceptions import AlreadyExistsError, BaseError

        if not self._conditional and self.size(name) is not None:
            return False
        data = b"".join(pieces)
        doubtful = not self._conditional
        pauses = self._patience.pauses()
        while True:
            mode = "create" if self._conditional else "overwrite"
            try:
                obstore.put(self._once, name, data, mode=mode, use_multipart=False)
                return self._conditional or self._holds(name, data)
            except AlreadyExistsError as error:
                # 409 is said while another put is under way, which may still fail.
                if status_of(error) != 409 or self.size(name) is not None:
                    return doubtful and self._holds(name, data)
                failure: Exception = error
            except (BaseError, OSError) as error:
                failure = error
                if not is_temporary(error):
                    raise named(error, name, self._address, putting=True) from error
                doubtful = True
            pause = next(pauses, None)
            if pause is None:
                raise named(failure, name, self._address, putting=True) from failure
            self._pause(pause)

    def get(self, name: str, limit: int) -> bytes:
        """See Store."""
        import obstore
        from obstore.exceptions import BaseError

        try:
            result = obstore.get(self._store, name)
            size = result.meta["size"]
            if size > limit:
                raise errors.ObjectDamaged(f"object {name} has {size} bytes, more than the {limit} it may have")
            data = bytes(result.bytes())
        except (BaseError, OSError) as error:
            raise self._read_error(error, name) from error
        if len(data) != size:
            raise errors.StoreUnavailable(
                f"the vault at {self._address} answers {len(data)} of the {size} bytes of {name}"
            )
        return data

    def start(self, name: str, length: int) -> tuple[bytes, int]:
        """See Store."""
        import obstore
        from obstore.exceptions import BaseError

        try:
            result = obstore.get(self._store, name, options={"range": (0, length)})
            data, size = bytes(result.bytes()), result.meta["size"]
        except (BaseError, OSError) as error:
            if status_of(error) in (None, 416) and not is_missing(error) and self.size(name) == 0:
                return b"", 0  # no range lies in an empty object
            raise self._read_error(error, name) from error
        if len(data) < min(length, size):
            raise errors.StoreUnavailable(f"the vault at {self._address} answers too few bytes of {name}")
        return data[:length], size

    def size(self, name: str) -> int | None:
        """See Store."""
        import obstore
        from obstore.exceptions import BaseError

        try:
            return obstore.head(self._store, name)["size"]
        except (BaseError, OSError) as error:
            if is_missing(error):
                return None
            raise named(error, name, self._address) from error

    def list(self, prefix: str, after: str = "") -> Iterator[str]:
        """See Store."""
        return (entry.name for entry in self._entries(prefix, after))

    def entries(self, prefix: str) -> Iterator[Entry]:
        """See Store."""
        return self._entries(prefix, "")

    def _entries(self, prefix: str, after: str) -> Iterator[Entry]:
        import obstore
        from obstore.exceptions import BaseError

        try:
            for batch in obstore.list(self._store, prefix=prefix or None, offset=after or None, chunk_size=_PAGE):
                for found in batch:
                    yield Entry(found["path"], found["size"], found["last_modified"])
        except (BaseError, OSError) as error:
            raise named(error, prefix, self._address) from error

    def delete(self, names: Sequence[str]) -> None:
        """See Store. One request each, a few beside each other: so it is known which ones the store refuses."""
        refused: dict[str, str] = {}

        def delete(name: str) -> None:
            import obstore
            from obstore.exceptions import BaseError

            try:
                obstore.delete(self._store, name)
            except (BaseError, OSError) as error:
                reason = why_kept(error)
                if reason is not None:
                    refused[name] = reason
                elif not is_missing(error):
                    raise named(error, name, self._address) from error

        with ThreadPoolExecutor(_DELETES, thread_name_prefix="kumodr-delete") as pool:
            for _ in pool.map(delete, names):
                pass
        if refused:
            name, reason = min(refused.items())
            count = f"{len(refused)} objects" if len(refused) > 1 else name
            raise errors.ObjectsLocked(f"the vault at {self._address} does not delete {count}: {reason}", refused)

    def _holds(self, name: str, data: bytes) -> bool:
        try:
            return self.get(name, len(data)) == data
        except errors.ObjectDamaged:
            return False

    def _read_error(self, error: Exception, name: str) -> errors.KumodrError:
        if is_missing(error):
            return errors.ObjectMissing(f"object {name} is missing from the vault at {self._address}")
        return named(error, name, self._address)


def is_missing(error: Exception) -> bool:
    """Whether the store says that there is no such object, though there is the bucket."""
    text = str(error)
    return isinstance(error, FileNotFoundError) and "NoSuchBucket" not in text and "ContainerNotFound" not in text
