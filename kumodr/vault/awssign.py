"""Signature version 4 of AWS for a request without a body, as S3 wants it.

obstore signs what it sends itself, and has no way to ask about a bucket; libraries that have are larger than kumodr.
Source: Amazon's "Authenticating Requests (AWS Signature Version 4)"; a test compares it with Amazon's own library.
"""

import hashlib
import hmac
from collections.abc import Mapping
from datetime import datetime
from urllib.parse import quote, urlsplit

from kumodr.vault.access import Keys

_EMPTY = hashlib.sha256(b"").hexdigest()


def signed(url: str, query: Mapping[str, str], region: str, keys: Keys, now: datetime) -> tuple[str, dict[str, str]]:
    """Given a bucket's address, a query, the region, keys and the time in UTC, return the whole address and headers."""
    parts = urlsplit(url)
    moment = f"{now:%Y%m%dT%H%M%SZ}"
    scope = f"{moment[:8]}/{region}/s3/aws4_request"
    headers = {"host": parts.netloc, "x-amz-content-sha256": _EMPTY, "x-amz-date": moment}
    if keys.token:
        headers["x-amz-security-token"] = keys.token
    names = ";".join(sorted(headers))
    asked = "&".join(f"{quote(name, safe='-_.~')}={quote(query[name], safe='-_.~')}" for name in sorted(query))
    path = quote(parts.path or "/", safe="/-_.~")
    lines = [f"{name}:{headers[name]}" for name in sorted(headers)]
    request = "\n".join(["GET", path, asked, *lines, "", names, _EMPTY])
    text = "\n".join(["AWS4-HMAC-SHA256", moment, scope, hashlib.sha256(request.encode()).hexdigest()])
    key = f"AWS4{keys.secret}".encode()
    for part in (*scope.split("/"), text):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    headers["authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={keys.key}/{scope}, SignedHeaders={names}, Signature={key.hex()}"
    )
    return f"{parts.scheme}://{parts.netloc}{path}?{asked}", headers
