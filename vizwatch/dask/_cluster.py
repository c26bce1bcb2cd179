"""Dask distributed, as far as it is used here: tasks that wait, queues, and which workers there are."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final

import attrs
from distributed import Client, KilledWorker, get_client, get_worker
from distributed.protocol.pickle import dumps
from distributed.worker_state_machine import SecedeEvent

__all__ = [
    "Channel",
    "Client",
    "Gone",
    "KilledWorker",
    "Released",
    "address_of",
    "cancelled",
    "connected",
    "here",
    "is_wanted",
    "pickled",
    "secede",
    "workers_of",
]

Message = list[Any]
"""What msgpack can say: numbers, texts, bytes, lists and dictionaries of those."""
_SIDES: Final = "caller", "shard"


async def connected(address: str) -> Client:
    """An asynchronous client of the scheduler at this address, to be closed; raises :class:`OSError`.

    Where it is reached by TLS, the configuration of Dask says with which certificates.
    """
    client = Client(address, asynchronous=True)
    try:
        await client
    except BaseException:
        await client.close()
        raise
    return client


class Gone(Exception):  # noqa: N818 - it is expected
    """The client was closed, or what went through it."""


class Released(Gone):
    """A channel was closed."""


@attrs.define(eq=False)
class Channel:
    """Messages in their order, by way of the scheduler; any number may put, and one gets.

    Each side may make it, whichever comes first, and each may close it on behalf of both.

    A `distributed.Queue` is the same, but whoever names one has to close it: one whose reader has died would
    be there for ever.
    """

    _client: Client
    _name: str
    _making: asyncio.Task[Any] | None = attrs.field(default=None, init=False)

    async def make(self) -> None:
        """Has the scheduler make it, which goes on if this is cancelled: to be closed it must be there.

        After it has failed, it is tried again.
        """
        making = self._making
        if making is None or (making.done() and not making.cancelled() and making.exception()):
            self._making = asyncio.create_task(self._scheduler.queue_create(name=self._name, maxsize=0))
        await self.made()

    async def made(self) -> None:
        """Waits until it is there, if this process has begun to make it."""
        if self._making is not None:
            await asyncio.shield(self._making)

    async def put(self, message: Message) -> None:
        """Sends a message; raises :class:`Released` where nobody will get it."""
        await self.made()
        try:
            await self._scheduler.queue_put(name=self._name, data=message, timeout=None)
        except KeyError:
            raise Released from None

    async def get(self, within: float) -> Message:
        """The next message; raises :class:`TimeoutError` where there is none within so many seconds.

        One that is cancelled may take a message with it, as the scheduler does not hear of that; for as long
        it keeps a connection for it, too.
        """
        try:
            answer = await self._scheduler.queue_get(name=self._name, timeout=within, batch=False)
        except KeyError:
            raise Released from None
        message: Message = answer["value"]
        return message

    async def is_there(self) -> bool:
        """Whether it is made, and was not closed by anybody."""
        try:
            await self._scheduler.queue_qsize(name=self._name)
        except KeyError:
            return False
        return True

    def close(self) -> None:
        """Has the scheduler forget it; more than once does no harm."""
        if self._making is not None:
            self._making.cancel()
        if self._client.status == "running":
            for _ in _SIDES:  # the scheduler counts how often it was made
                self._client._send_to_scheduler({"op": "queue_release", "name": self._name})  # noqa: SLF001

    @property
    def _scheduler(self) -> Any:
        if self._client.status != "running" or self._client.scheduler is None:
            raise Gone
        return self._client.scheduler


async def here() -> tuple[Client, str]:
    """The client of the worker that runs this task, and the worker's address."""
    worker, client = get_worker(), get_client()
    await client  # a channel that is closed before would stay
    return client, str(worker.address)


def secede(key: str) -> None:
    """The task of that key, which waits for most of its life, takes no thread of its worker's from others."""
    event = SecedeEvent(key=key, compute_duration=0.0, stimulus_id=f"vizwatch-secede-{key}")
    get_worker().handle_stimulus(event)


def is_wanted(key: str) -> bool:
    """Whether the scheduler still wants the task of that key, which this worker runs, from anybody."""
    task = get_worker().state.tasks.get(key)
    return task is not None and task.state != "cancelled"


async def workers_of(client: Client) -> list[str]:
    """The addresses of all workers; raises :class:`Gone`."""
    if client.status != "running":
        raise Gone
    return [*await client.nthreads()]


async def cancelled(client: Client, futures: Sequence[Any]) -> None:
    """Has the scheduler forget tasks; one that runs is not ended by that."""
    if client.status == "running":
        await client.cancel(futures)


def address_of(client: Client) -> str:
    """The scheduler's."""
    return str(getattr(client.scheduler, "address", ""))


def pickled(value: object) -> bytes:
    """The value as bytes, also where it is a function that was made in a script."""
    data: bytes = dumps(value)
    return data
