"""The webhook: each transition is posted, signed by the Standard Webhooks scheme; no redirect is followed."""

from __future__ import annotations

import base64
import contextlib
import email.utils
import hmac
import time
from collections.abc import Mapping
from typing import Final

import aiohttp

from vizwatch import __version__
from vizwatch.service.backlog import Entry
from vizwatch.service.options import Webhook
from vizwatch.service.sinks import DeliveryError

_MAX_ANSWER: Final = 4_096
_RETRIED_SOON: Final = frozenset({408, 425, 429})


class WebhookSink:
    """Posts each transition as JSON; any 2xx is taken for delivered."""

    def __init__(self, webhook: Webhook, within: float) -> None:
        self._webhook = webhook
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=1),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=within),
            auto_decompress=False,
            trust_env=False,
            headers={"User-Agent": f"vizwatch/{__version__}", "Content-Type": "application/json"},
        )

    async def deliver(self, entry: Entry, /) -> None:
        """Posts it, and looks at the status alone."""
        body = entry.payload.encode("ascii")
        headers = signature(self._webhook.key, entry.id, int(time.time()), body)
        try:
            async with self._session.post(
                self._webhook.url, data=body, headers=headers, allow_redirects=False
            ) as response:
                status, retry_after = response.status, _retry_after(response.headers)
                # So that the connection can be used again; one with a longer answer is closed. Whatever
                # becomes of the rest, the status has been said.
                with contextlib.suppress(aiohttp.ClientError, OSError):
                    await response.content.read(_MAX_ANSWER)
        except TimeoutError:
            raise DeliveryError("no answer in time") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            # Its text may have the address, and what stands in that may be a secret.
            raise DeliveryError(f"no answer: {type(error).__name__}") from None
        if not 200 <= status < 300:
            soon = status >= 500 or status in _RETRIED_SOON
            raise DeliveryError(f"HTTP {status}", is_refusal=not soon, retry_after=retry_after)

    async def aclose(self) -> None:
        """Closes the connection."""
        await self._session.close()


def signature(key: hmac.HMAC, message_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The three headers by which a receiver knows who sent it, what, and when.

    Source: the Standard Webhooks specification, "Signature scheme".
    """
    signing = key.copy()
    signing.update(f"{message_id}.{timestamp}.".encode() + body)
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": "v1," + base64.b64encode(signing.digest()).decode("ascii"),
    }


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """How many seconds to wait, told as such or as a date by the receiver's clock; ``None`` if as neither."""
    value = headers.get("Retry-After", "")
    if value.isascii() and value.isdigit() and len(value) < 10:
        return float(value)
    try:
        until, now = map(email.utils.parsedate_to_datetime, (value, headers.get("Date", "")))
        return max((until - now).total_seconds(), 0.0)
    except (TypeError, ValueError, OverflowError):  # a date without a zone among them
        return None
