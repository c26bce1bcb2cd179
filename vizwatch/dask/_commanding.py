"""Commanding: what the caller tells each incarnation of a shard, by a channel of its own."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any, Final

import attrs

from vizwatch.dask._cluster import Channel, Client, Gone

_AT_ONCE: Final = 16
"""How many are told something at once, each by a connection of its own."""


@attrs.define(eq=False)
class Commands:
    """The channels to all incarnations of all shards."""

    _cluster: Client
    _start: Callable[[Coroutine[Any, Any, None]], object]
    """Has something done in the background."""
    run: str = attrs.field(default="", init=False)
    """Names the channel of the reports, and what belongs to it."""
    _open: dict[str, Channel] = attrs.field(factory=dict, init=False)
    """By the incarnation."""
    _dismissed: set[Channel] = attrs.field(factory=set, init=False)
    """Those of incarnations that were retired, until they are closed."""

    def open(self, incarnation: str) -> Channel:
        """The channel to an incarnation that begins."""
        commands = self._open[incarnation] = Channel(self._cluster, f"{self.run}-{incarnation}")
        return commands

    def send(self, incarnation: str | None, what: str) -> None:
        """Tells an incarnation something, unless it was retired."""
        commands = self._open.get(incarnation or "")
        if commands is not None:
            self._start(_sent(commands, what))

    async def send_all(self, what: str) -> None:
        """Tells it to all incarnations that were not retired."""
        rest = iter([*self._open.values()])

        async def send() -> None:
            for commands in rest:
                await _sent(commands, what)

        await asyncio.gather(*(send() for _ in range(_AT_ONCE)))

    def retire(self, incarnation: str | None) -> None:
        """An incarnation is no shard's any more: one whose worker is gone, or was taken to be. Idempotent."""
        commands = self._open.pop(incarnation or "", None)
        if commands is not None:
            self._dismissed.add(commands)
            self._start(self._dismiss(commands))

    async def _dismiss(self, commands: Channel) -> None:
        await commands.make()  # which its shard may not have done yet
        await _sent(commands, "stop")
        commands.close()
        self._dismissed.discard(commands)

    @property
    def channels(self) -> list[Channel]:
        """Those that are to be closed."""
        return [*self._open.values(), *self._dismissed]


async def _sent(commands: Channel, what: str) -> None:
    with contextlib.suppress(Gone):  # it has stopped meanwhile
        await commands.put([what])
