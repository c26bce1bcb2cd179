"""How the cloud can be told to misbehave: which requests a fault strikes, and what it does to them."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from typing import Any, ClassVar, Final, TypeVar

import attrs

from vizwatch.emulator import _checks
from vizwatch.emulator._checks import checked
from vizwatch.emulator._refusals import Answer

T = TypeVar("T", bound=attrs.AttrsInstance)

READS: Final = frozenset({"list", "details"})
SERVICE: Final = READS | {"create", "update", "delete", "stop", "restart"}
OPERATIONS: Final = SERVICE | {"token"}


@attrs.frozen(kw_only=True)
class Effect:
    """What a fault does; `operations` are those it can strike at all."""

    operations: ClassVar[frozenset[str] | None] = None
    every: ClassVar[int] = 1
    count: ClassVar[int | None] = None


@attrs.frozen(kw_only=True)
class Outcome(Effect):
    """Takes the place of the answer."""

    performed: bool = checked(_checks.switch, default=False)
    """Whether the operation is carried out all the same: its outcome is then unknown to the client."""

    def answer(self) -> Answer | None:
        """What is sent; ``None``: nothing, the connection is closed."""
        return None


@attrs.frozen(kw_only=True)
class Status(Outcome):
    """Answers with an HTTP status, and an error in the service's form."""

    status: int = checked(_checks.whole, 503, low=200, high=599)
    code: str | None = checked(_checks.text, None, high=100)
    """``ModelArts.0010``, for example; ``None``: the body has no code."""
    message: str = checked(_checks.text, "emulated fault", high=100_000)
    retry_after: str | float | None = checked(_checks.line, None, high=1_000)
    """The header ``Retry-After``: seconds, or any text."""
    headers: Mapping[str, str] = attrs.field(
        factory=dict, validator=lambda _, field, value: _checks.headers(field.name, value)
    )

    def answer(self) -> Answer:
        body: dict[str, Any] = {"is_success": False, "error_message": self.message}
        if self.code is not None:
            body["error_code"] = self.code
        headers = dict(self.headers)
        if self.retry_after is not None:
            headers["Retry-After"] = f"{self.retry_after}"
        return Answer(status=self.status, body=body, headers=headers)


@attrs.frozen(kw_only=True)
class Body(Outcome):
    """Answers with a text of any kind."""

    text: str = checked(_checks.text, "", high=16 * 2**20)
    status: int = checked(_checks.whole, 200, low=200, high=599)
    content_type: str = checked(_checks.line, "application/json", high=200)

    def answer(self) -> Answer:
        return Answer(status=self.status, body=self.text, content_type=self.content_type)


@attrs.frozen(kw_only=True)
class Drop(Outcome):
    """Closes the connection without an answer."""


@attrs.frozen(kw_only=True)
class Latency(Effect):
    """Answers later, by seconds of the event loop's time."""

    seconds: float = checked(_checks.number, 1.0)
    performed: bool = checked(_checks.switch, default=False)
    """Whether the wait comes after the operation is carried out, not before."""


@attrs.frozen(kw_only=True)
class Truncate(Effect):
    """Announces the whole answer, sends its body's first bytes, and closes the connection."""

    bytes: int = checked(_checks.whole, 0, low=0, high=2**31)


@attrs.frozen(kw_only=True)
class Stale(Effect):
    """Reads answer with what was true some seconds of the cloud's clock ago."""

    operations = READS
    seconds: float = checked(_checks.number, 5.0)


@attrs.frozen(kw_only=True)
class ReplicaLag(Stale):
    """As `Stale`, but by default for each second read: two replicas answer in turn, and one lags."""

    every = 2


@attrs.frozen(kw_only=True)
class TokenExpiry(Effect):
    """All tokens issued so far expire, just before the request is looked at."""

    operations = SERVICE
    count = 1


@attrs.frozen(kw_only=True)
class Drift(Effect):
    """Before each page of a listing, jobs are inserted and deleted; which ones, the cloud's seed decides."""

    operations = frozenset({"list"})
    insert: int = checked(_checks.whole, 1, low=0, high=10_000)
    delete: int = checked(_checks.whole, 1, low=0, high=10_000)


EFFECTS: Final[Mapping[str, type[Effect]]] = {
    "status": Status,
    "latency": Latency,
    "drop": Drop,
    "truncate": Truncate,
    "stale": Stale,
    "replica_lag": ReplicaLag,
    "token_expiry": TokenExpiry,
    "drift": Drift,
    "body": Body,
}


@attrs.frozen(kw_only=True)
class Match:
    """Which requests a fault strikes: those that fit every condition that is given."""

    method: str | None = checked(_checks.text, None, low=1, high=20)
    path: str | None = checked(_checks.text, None, low=1, high=1_000)
    """A part of the path, or a glob of the whole path if it has one of ``*?[``."""
    project_id: str | None = checked(_checks.identifier, None)
    job_id: int | None = checked(_checks.whole, None, low=0, high=2**63 - 1)
    operation: str | None = checked(_checks.choice, None, allowed=sorted(OPERATIONS))

    def fits(self, target: Target) -> bool:
        """Whether a request is meant."""
        return (
            (self.method is None or self.method.upper() == target.method)
            and (self.path is None or _fits_path(self.path, target.path))
            and (self.project_id is None or self.project_id == target.project_id)
            and (self.job_id is None or f"{self.job_id}" == target.job_id)
            and (self.operation is None or self.operation == target.operation)
        )


def _fits_path(pattern: str, path: str) -> bool:
    return fnmatch.fnmatchcase(path, pattern) if any(mark in pattern for mark in "*?[") else pattern in path


@attrs.frozen(kw_only=True)
class Target:
    """What faults look at in a request."""

    method: str
    path: str
    operation: str | None = None
    project_id: str | None = None
    job_id: str | None = None


@attrs.define(kw_only=True)
class Fault:
    """An effect, the requests that it is for, and how often or long it strikes."""

    fault_id: int
    effect: Effect
    match: Match
    left: int | None
    """How many more requests it strikes; ``None``: any number."""
    until: float | None
    """When it ends, by the cloud's clock; ``None``: never."""
    every: int
    """Strikes each n-th of the requests that it is for."""
    after: int
    """Lets so many of them pass first."""
    seen: int = 0

    def is_over(self, now: float) -> bool:
        """Whether it will never strike again."""
        return self.left == 0 or (self.until is not None and now >= self.until)

    def strikes(self, target: Target) -> bool:
        """Whether it strikes this request; counts it."""
        operations = self.effect.operations
        if (operations is not None and target.operation not in operations) or not self.match.fits(target):
            return False
        self.seen += 1
        turn = self.seen - self.after
        if turn <= 0 or turn % self.every:
            return False
        if self.left is not None:
            self.left -= 1
        return True


@attrs.define
class Faults:
    """The faults in force, oldest first."""

    faults: list[Fault] = attrs.field(factory=list)
    made: int = 0

    def add(
        self,
        kind: str,
        params: Mapping[str, Any],
        *,
        now: float,
        match: Mapping[str, Any] | None,
        count: int | None,
        ttl: float | None,
        every: int | None,
        after: int,
    ) -> int:
        """Put a fault in force and return its id; raises ``ConfigError`` naming what is allowed."""
        _checks.choice("kind", kind, allowed=EFFECTS)
        effect = _made(EFFECTS[kind], f"a parameter of {kind}", params)
        if match is not None and not isinstance(match, Mapping):
            raise _checks.refused("match", match, "an object")
        count = effect.count if count is None else _checks.whole("count", count, low=1, high=2**31)
        fault = Fault(
            fault_id=self.made + 1,
            effect=effect,
            match=_made(Match, "a condition of match", match or {}),
            left=count,
            until=None if ttl is None else now + _checks.number("ttl", ttl),
            every=effect.every if every is None else _checks.whole("every", every, low=1, high=2**31),
            after=_checks.whole("after", after, low=0, high=2**31),
        )
        self.made += 1
        self.faults.append(fault)
        return fault.fault_id

    def strike(self, target: Target, now: float) -> list[Effect]:
        """The effects on this request."""
        if not self.faults:
            return []
        self.faults = [fault for fault in self.faults if not fault.is_over(now)]
        return [fault.effect for fault in self.faults if fault.strikes(target)]


def _made(cls: type[T], what: str, params: Mapping[str, Any]) -> T:
    _checks.known(what, params, attrs.fields_dict(cls))
    return cls(**params)
