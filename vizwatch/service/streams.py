"""Redis Streams: each transition is an entry of a stream, with its `id` and, as JSON, the `transition`."""

from __future__ import annotations

import asyncio
import contextlib
import re
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.credentials import UsernamePasswordCredentialProvider

from vizwatch.service.backlog import Entry
from vizwatch.service.options import RedisStream
from vizwatch.service.sinks import DeliveryError

_CLOSE_WITHIN: Final = 0.5
_CODE: Final = re.compile(r"[A-Z]{3,20}")
_PASSING: Final = frozenset(
    {"BUSY", "ClusterDownError", "MISCONF", "MasterDownError", "NOREPLICAS", "TryAgainError"}
)
"""Refusals that may be over soon."""


class RedisSink:
    """Adds each transition to the stream."""

    def __init__(self, stream: RedisStream, within: float) -> None:
        self._stream, self._within = stream, within
        url = urlsplit(stream.url)
        options: dict[str, Any] = {}
        if url.scheme == "rediss":
            # Not the default of all versions of redis-py.
            options |= {"ssl_cert_reqs": "required", "ssl_check_hostname": True}
        if "@" in url.netloc:
            # In the URL, some versions of redis-py show them in the repr of a pool.
            options["credential_provider"] = UsernamePasswordCredentialProvider(
                unquote(url.username or "") or None, unquote(url.password or "") or None
            )
        self._redis = redis.asyncio.Redis.from_url(
            url._replace(netloc=url.netloc.rpartition("@")[2]).geturl(),
            **options,
            single_connection_client=True,
            protocol=2,  # a Redis 5 knows no other
            socket_connect_timeout=within,
            socket_timeout=within,
            retry=Retry(NoBackoff(), 0),  # the courier's matter
        )

    async def deliver(self, entry: Entry, /) -> None:
        """Adds it; the stream is cut to about its longest length."""
        try:
            async with asyncio.timeout(self._within):
                await self._redis.xadd(
                    self._stream.stream,
                    {"id": entry.id, "transition": entry.payload},
                    maxlen=self._stream.max_length,
                )
        except redis.ReadOnlyError:
            # A replica by now: its address may lead to the new primary.
            with contextlib.suppress(redis.RedisError, OSError):
                async with asyncio.timeout(_CLOSE_WITHIN):
                    await self._redis.aclose()
            raise DeliveryError("refused: it is a replica") from None
        except redis.OutOfMemoryError:
            raise DeliveryError("it has no memory left") from None
        except redis.ResponseError as error:
            what = _kind(error)
            raise DeliveryError(f"refused: {what}", is_refusal=what not in _PASSING) from None
        except TimeoutError:
            raise DeliveryError("no answer in time") from None
        except (redis.RedisError, OSError, ValueError) as error:
            # redis-py may say of a refused password that there is no connection.
            below = error.__cause__ or error.__context__ or error
            if isinstance(below, redis.AuthenticationError):
                raise DeliveryError("refused: the user or password", is_refusal=True) from None
            raise DeliveryError(f"no answer: {type(error).__name__}") from None

    async def aclose(self) -> None:
        """Closes the connection, of which the other side need not hear."""
        with contextlib.suppress(redis.RedisError, OSError):
            async with asyncio.timeout(_CLOSE_WITHIN):
                await self._redis.aclose()


def _kind(error: redis.ResponseError) -> str:
    """What is wrong, in one word: the rest of the text may repeat what was sent, the password included."""
    if type(error) is not redis.ResponseError:
        return type(error).__name__  # redis-py knows its code, and has cut that off
    code = _CODE.fullmatch(str(error).partition(" ")[0])
    return code[0] if code else "ERR"
