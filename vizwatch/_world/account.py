"""The request budget of one account, for all the clients that spend it."""

from __future__ import annotations

import asyncio
import math

from vizwatch._rules.pacing import Haste, Pace
from vizwatch._values import checks
from vizwatch._values.errors import ConfigError, ConnectError
from vizwatch._world.gate import Retries
from vizwatch._world.line import Due, Line
from vizwatch._world.report import Report


class Account:
    """One request budget, shared by the clients that are given it.

    A service counts requests by account, and not by client or project. Clients with one `Account` together
    keep its budget, and what one of them is told by a 429 holds for all: they rest, go on at half their rate,
    and slowly speed up. While their reads fail, they share how often these are tried again. Each client has
    an account of its own, unless it is given one.

    ::

        account = vizwatch.Account(requests_per_second=0.6)
        async with (
            vizwatch.Client(endpoint, "project-a", auth=auth, account=account) as a,
            vizwatch.Client(endpoint, "project-b", auth=auth, account=account) as b,
        ): ...

    Args:
        requests_per_second: The budget; ``None`` for no limit, until a 429 says that there is one.

    Raises:
        ConfigError: It is no such number.
    """

    def __init__(self, requests_per_second: float | None = None) -> None:
        name = "requests_per_second"
        budget = None if requests_per_second is None else checks.rate(name, requests_per_second)
        self.report = Report()
        """What the watches of its clients have to tell."""
        self.haste = Haste()
        """How many of their looks may come sooner than usual."""
        self.retries = Retries()
        """How often what their watches read is tried again, while it fails."""
        self._pace = Pace(budget)
        self._line = Line()
        self._loop: asyncio.AbstractEventLoop | None = None

    def enter_loop(self) -> None:
        """Lets it outlive an event loop, whose waiting calls are its own: the pace is not.

        Raises:
            ConfigError: It is in use in another event loop.
        """
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            if self._loop is not None and self._loop.is_running():
                raise ConfigError("this account is in use in another event loop: make one for each")
            self._loop, self._line = loop, Line()

    async def admit(self, deadline: float, *, is_patient: bool = False, due: Due | None = None) -> None:
        """Waits until another request may be sent, and counts it as sent.

        Args:
            deadline: Until when to wait, by the event loop's time; ``inf`` for as long as it takes.
            is_patient: Whether to let all others go first.
            due: Until when it is wanted: among the patient, who is due first goes first.

        Raises:
            ConnectError: None may be sent in time.
        """
        loop, pace = asyncio.get_running_loop(), self._pace
        if pace.is_open and self._line.is_free:
            pace.sent(loop.time())
            return
        self._check_rest(deadline)  # nor is it worth standing in the line for
        try:
            async with (
                asyncio.timeout_at(None if math.isinf(deadline) else deadline),
                self._line.turn(is_patient=is_patient, due=due),
            ):
                while (wait := pace.wait(loop.time())) > 0.0:
                    self._check_rest(deadline)
                    await asyncio.sleep(wait)
                pace.sent(loop.time())
        except TimeoutError:
            raise ConnectError(
                "not sent: no request was due in time, by the account's requests_per_second or after a 429"
            ) from None

    def _check_rest(self, deadline: float) -> None:
        rest = self.rest()
        if asyncio.get_running_loop().time() + rest >= deadline:
            late = ConnectError(f"not sent: after a 429 this account rests for another {rest:.0f} s")
            late.retry_after = rest
            raise late

    def rest(self) -> float:
        """For how many seconds nothing may be sent at all."""
        return self._pace.rest(asyncio.get_running_loop().time())

    def throttled(self, sent_at: float, retry_after: float | None, allowed: float | None) -> None:
        """A request of one of its clients was refused for its rate; as :meth:`Pace.throttled`."""
        self._pace.throttled(asyncio.get_running_loop().time(), sent_at, retry_after, allowed)

    def __repr__(self) -> str:
        return f"Account(requests_per_second={self._pace.budget})"


def own_account(given: object) -> Account | None:
    """An account of the caller's, or ``None``. Raises :class:`ConfigError` where it is neither."""
    if given is not None and not isinstance(given, Account):
        raise ConfigError(f"account must be an Account, not {type(given).__name__}")
    return given
