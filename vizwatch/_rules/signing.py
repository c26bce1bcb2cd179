"""Signatures with an access key: SDK-HMAC-SHA256, as the API gateways of both clouds check them.

Sources: the publishers' "API Request Signing Guide", and the vendor's signer in `huaweicloudsdkcore`, to
which a property test holds this one.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import hmac
from collections.abc import Iterable, Mapping
from typing import Final
from urllib.parse import quote, unquote

ALGORITHM: Final = "SDK-HMAC-SHA256"


def timestamp(at: dt.datetime) -> str:
    """A time in UTC as `X-Sdk-Date` has it, ``20260131T235959Z``."""
    return f"{at:%Y%m%dT%H%M%SZ}"


def canonical_query(parameters: Iterable[tuple[str, str]]) -> str:
    """A query in the one order and encoding that is signed, and so has to be sent."""
    return "&".join(f"{_quoted(key)}={_quoted(value)}" for key, value in sorted(parameters))


def authorization(
    method: str,
    path: str,
    query: str,
    headers: Mapping[str, str],
    body: bytes,
    *,
    access_key: str,
    secret_key: str,
) -> str:
    """The `Authorization` header of a request.

    Args:
        method: The HTTP method.
        path: Percent-encoded or not.
        query: As :func:`canonical_query` gives it.
        headers: All that are signed, `Host` and `X-Sdk-Date` among them; each must be sent as it stands here.
            One with an underscore in its name is left out, since gateways drop it.
        body: As it is sent.
        access_key: The key's id.
        secret_key: The key itself.
    """
    signed = {name.lower(): value.strip() for name, value in headers.items() if "_" not in name}
    names = ";".join(sorted(signed))
    lines = [method.upper(), _canonical_path(path), query]
    lines += [f"{name}:{signed[name]}" for name in sorted(signed)]
    unsigned = signed.get("x-sdk-content-sha256") if body else None
    lines += ["", names, unsigned or hashlib.sha256(body).hexdigest()]
    digest = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    text = f"{ALGORITHM}\n{signed['x-sdk-date']}\n{digest}"
    signature = hmac.new(secret_key.encode(), text.encode(), hashlib.sha256).hexdigest()
    return f"{ALGORITHM} Access={access_key}, SignedHeaders={names}, Signature={signature}"


def _canonical_path(path: str) -> str:
    canonical = "/".join(_quoted(part) for part in unquote(path).split("/"))
    return canonical if canonical.endswith("/") else f"{canonical}/"


def _quoted(text: str) -> str:
    return quote(text, safe="~")
