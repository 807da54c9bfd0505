"""What an object store's client says when it fails, as one of kumodr's errors: what, where, what to do."""

import re

from kumodr import errors

_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>([A-Za-z]{1,60})</Code>")
_MESSAGE = re.compile(r"<Message>([^<]{1,200})</Message>")
_NO_BUCKET = ("NoSuchBucket", "ContainerNotFound", "The specified bucket does not exist")
_FULL = ("XMinioStorageFull", "StorageFull", "QuotaExceeded", "InsufficientCapacity", "EntityTooLarge")
_RETRIED = {408, 409, 425, 429}
"""Answers below 500 that mean: try again."""


def status_of(error: Exception) -> int | None:
    """Given what the client raised, return the status that the store answered with, None without an answer."""
    found = _STATUS.search(str(error))
    return int(found[1]) if found else None


def is_temporary(error: Exception) -> bool:
    """Whether the same request may well be answered a little later: no answer came, or one that says so."""
    status = status_of(error)
    return (status is None or status >= 500 or status in _RETRIED) and status not in (501, 507)


def named(error: Exception, name: str, address: str, *, putting: bool = False) -> errors.KumodrError:
    """Given what the client raised, the object's name and the vault's address, return the error that a person sees.

    Only what is known to be harmless is taken over from the store's answer: its status and the word for its reason.
    """
    from obstore.exceptions import NotSupportedError, PermissionDeniedError, UnauthenticatedError

    text = str(error)
    status = status_of(error)
    code = _CODE.search(text)
    reason = code[1] if code else f"status {status}" if status else type(error).__name__
    if any(each in text for each in _NO_BUCKET):
        return errors.VaultMissing(
            f"there is no bucket for the vault at {address}", remedy="make the bucket, or correct the address"
        )
    if any(each in text for each in _FULL) or status == 507:
        return errors.StoreFull(f"the vault at {address} is full ({reason})")
    if isinstance(error, (PermissionDeniedError, UnauthenticatedError)) or status in (401, 403):
        if putting:
            return errors.StoreReadOnly(f"the vault at {address} refuses {name} ({reason})")
        return errors.StoreRefused(f"the vault at {address} refuses {name or 'to be listed'} ({reason})")
    if isinstance(error, NotSupportedError) or status == 501:
        return errors.StoreUnconditional(f"the store at {address} does not know a request that kumodr needs ({reason})")
    if "169.254.169.254" in text or "MetadataEndpoint" in text or "metadata.google" in text:
        return errors.CredentialsMissing(
            f"no credentials are given for the vault at {address}, and this host has none of its own"
        )
    if "InvalidCertificate" in text:
        return errors.StoreUnavailable(
            f"the certificate of the vault at {address} is not trusted",
            remedy="name its authority with vault.certificate_file, or correct the endpoint",
        )
    if status == 301 or reason in ("PermanentRedirect", "AuthorizationHeaderMalformed"):
        return errors.StoreUnavailable(
            f"the bucket of the vault at {address} is in another region", remedy="set vault.region, or AWS_REGION"
        )
    return errors.StoreUnavailable(f"the vault at {address} fails with {name or 'its list'}: {_why(text, reason)}")


def why_kept(error: Exception) -> str | None:
    """Given what the client raised at a delete, return why the store keeps the object, None for another error."""
    from obstore.exceptions import AlreadyExistsError, PermissionDeniedError

    status = status_of(error)
    if isinstance(error, (PermissionDeniedError, AlreadyExistsError)) or status in (403, 409, 412):
        text = str(error)
        message, code = _MESSAGE.search(text), _CODE.search(text)
        said = message[1] if message else code[1] if code else "it refuses"
        return "".join(each if each.isprintable() else " " for each in said)
    return None


def _why(text: str, reason: str) -> str:
    if "kind: Timeout" in text:
        return "it did not answer in time"
    if "kind: Connect" in text:
        return "it cannot be reached"
    if "HTTP error" in text:
        return "it cuts the connection"
    return reason
