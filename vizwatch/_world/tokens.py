"""One token for all requests: got by one call for all, renewed in time, and again where it was refused."""

from __future__ import annotations

import abc
import asyncio
import contextlib
import copy
from collections.abc import Awaitable, Callable, Mapping
from typing import Final, NoReturn

from vizwatch._rules import retrying
from vizwatch._values import regions
from vizwatch._values.errors import CallError, ConfigError, VizwatchError
from vizwatch._values.exchange import Outgoing, Token
from vizwatch._world.chance import CHANCE
from vizwatch._world.line import to_its_end

_RENEW_AT: Final = 0.8
_SPREAD: Final = 0.05
RENEWS_AGAIN_AFTER: Final = 60.0
"""How long a renewal that failed, or was in vain, is not tried again, in seconds."""
_CLOSE_WITHIN: Final = 2.0


class Tokens:
    """The tokens of one account, the last one kept.

    It is renewed at 80 % of its life, a little earlier or later by chance, while the old one is used as long
    as it lives: no request waits for that. A token that is refused by the very request that it was got for
    is not replaced in the same minute. Credentials that were refused are not sent again: accounts get locked.

    Args:
        ask: Gets a token.
    """

    def __init__(self, ask: Callable[[], Awaitable[Token]]) -> None:
        self._ask = ask
        self._token: Token | None = None
        self._renew_at = 0.0
        self._expires_at = 0.0
        self._got_in_vain: Token | None = None
        self._got_at = 0.0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._asking = asyncio.Lock()
        self._asked = 0
        self._failure: CallError | None = None
        self._renewal: asyncio.Task[None] | None = None

    async def current(self) -> Token:
        """A token that lives. Raises what asking for it raises, if there is none."""
        self._enter_loop()
        now = asyncio.get_running_loop().time()
        if self._token is None or now >= self._expires_at:
            return await self._other_than(self._token)
        if now >= self._renew_at and not self._asking.locked():
            self._renew_at = now + RENEWS_AGAIN_AFTER
            self._renewal = asyncio.create_task(self._renew_in_advance(self._token))
        return self._token

    async def _renew_in_advance(self, old: Token) -> None:
        # What is wrong is told once the old token is at its end; until then it is asked about each minute.
        with contextlib.suppress(VizwatchError):
            await self._other_than(old)

    async def renew(self, refused: Mapping[str, str]) -> bool:
        """Gets another token than the refused one, by one call, for however many were refused with it.

        Gives ``False`` where that has just been done and was in vain.
        """
        self._enter_loop()
        old, loop = self._token, asyncio.get_running_loop()
        if old is not None and old.value != refused.get("X-Auth-Token"):
            return True
        if old is not None and old is self._got_in_vain and loop.time() < self._got_at + RENEWS_AGAIN_AFTER:
            return False
        await self._other_than(old)
        return True

    def _enter_loop(self) -> None:
        """Lets credentials outlive an event loop, whose lock and task are its own: the token is not."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            if self._loop is not None and self._loop.is_running():
                raise ConfigError("these credentials are in use in another event loop: make some for each")
            self._loop, self._asking, self._renewal = loop, asyncio.Lock(), None

    def in_vain(self, sent: Mapping[str, str]) -> None:
        """A token was refused by the very request that it was got for: another one would be, too."""
        if self._token is not None and self._token.value == sent.get("X-Auth-Token"):
            self._got_in_vain, self._got_at = self._token, asyncio.get_running_loop().time()

    async def aclose(self) -> None:
        """Ends a renewal in advance, so that no task is left behind; later requests may begin another."""
        if self._loop is asyncio.get_running_loop() and self._renewal is not None:
            self._renewal.cancel()
            await to_its_end(asyncio.wait([self._renewal], timeout=_CLOSE_WITHIN))

    async def _other_than(self, old: Token | None) -> Token:
        """Asks for a token, or takes the one, or the failure, that another task is just getting.

        If the task that asks is cancelled, the next one in the line asks.
        """
        asked = self._asked
        async with self._asking:
            if self._token is not None and self._token is not old:
                return self._token
            refused = self._failure is not None and retrying.is_permanent(self._failure)
            if self._failure is not None and (refused or self._asked != asked):
                raise copy.copy(self._failure)
            try:
                token = await self._ask()
            except CallError as error:
                self._asked += 1
                self._failure = error
                raise copy.copy(error) from None
            self._keep(token)
            return token

    def _keep(self, token: Token) -> None:
        self._token, self._failure = token, None
        self._asked += 1
        now = asyncio.get_running_loop().time()
        self._renew_at = now + token.lifetime * (_RENEW_AT + CHANCE.uniform(-_SPREAD, _SPREAD))
        self._expires_at = now + token.lifetime


class TokenGetter(abc.ABC):
    """Credentials that are a token which is got when it is needed: what several ways of getting it share."""

    def __init__(self) -> None:
        self._tokens = Tokens(self._ask)

    @abc.abstractmethod
    async def _ask(self) -> Token: ...

    @abc.abstractmethod
    async def _asked_at(self) -> str:
        """The identity service's address."""

    async def headers(self, request: Outgoing, /) -> Mapping[str, str]:
        """The token, for any request to its cloud; a new one where the old one is, or soon will be, over.

        Raises:
            ConfigError: Something is missing or wrong in what the token is got with, or the request goes to
                the other cloud.
            AuthenticationError: The identity service refused it.
            VizwatchError: It gave no token, and there is no old one that still lives.
        """
        regions.check_one_cloud(await self._asked_at(), request.url)
        return {"X-Auth-Token": (await self._tokens.current()).value}

    async def renew(self, refused: Mapping[str, str], /) -> bool:
        """A token other than the refused one: by one call, for however many requests were refused with it.

        Where the last one was got in vain, less than a minute ago, there is none.
        """
        return await self._tokens.renew(refused)

    def in_vain(self, sent: Mapping[str, str], /) -> None:
        """What was got by :meth:`renew` was refused by the request that it was got for."""
        self._tokens.in_vain(sent)

    async def aclose(self) -> None:
        """Ends what is under way in the background: each client that they were given to does so.

        They can be used further, by other clients or by themselves.
        """
        await self._tokens.aclose()

    def __reduce__(self) -> NoReturn:
        raise TypeError("credentials are not pickled: make them anew where they are needed")
