"""Plans: what a shard is to watch, as it travels from the caller to a worker."""

from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, Final

import attrs

from vizwatch._rules import wire
from vizwatch._values.errors import ConfigError
from vizwatch._values.settings import Settings
from vizwatch._world.account import Account
from vizwatch._world.auth import AkSkAuth, Auth, TokenAuth
from vizwatch._world.checkpoint import Stream
from vizwatch._world.clouds import CloudsAuth
from vizwatch._world.iam import PasswordAuth
from vizwatch.dask._cluster import pickled
from vizwatch.fleet import Target, WatchOptions, payer_of

_WITH_SETTINGS: Final = (PasswordAuth, CloudsAuth)
_KINDS: Final[Mapping[str, type[Any]]] = {
    kind.__name__: kind for kind in (TokenAuth, AkSkAuth, *_WITH_SETTINGS)
}


@attrs.frozen
class Project:
    """One target, as it travels."""

    index: int
    """Which it is of all targets."""
    stream: Stream
    auth: int
    """Which of the plan's credentials are its own."""
    account: int
    """Which of the plan's budgets it spends."""


@attrs.frozen
class Plan:
    """What one shard is to watch."""

    projects: Sequence[Project]
    auths: Sequence[tuple[str, Any]] = attrs.field(repr=False)
    """Credentials, with what they are made of in the clear."""
    rates: Sequence[float | None]
    """The part of their account's budget, in requests a second."""
    settings: Settings
    options: WatchOptions

    def sealed(self) -> bytes:
        """The plan as bytes: with secrets in it, for a connection that nobody listens to.

        Raises:
            ConfigError: Something in it cannot be sent to another process.
        """
        try:
            return pickled(self)
        except Exception as error:  # noqa: BLE001 - pickling raises whatever a user's object does
            reason = type(error).__name__
        # Outside of the except clause: what was raised may show a secret, and must not hang on this.
        raise ConfigError(
            f"settings and credentials must be such as can be sent to a worker: {reason}; hooks and "
            "credentials of your own have to be importable there"
        )

    @classmethod
    def opened(cls, sealed: bytes) -> Plan:
        """The plan that was sealed.

        Raises:
            ConfigError: Something in it cannot be made in this process.
        """
        try:
            plan: Plan = pickle.loads(sealed)  # noqa: S301 - from the caller, whose code the worker runs anyway
        except Exception as error:  # noqa: BLE001 - as above
            reason = type(error).__name__
        else:
            return plan
        # As above.
        raise ConfigError(
            f"settings and credentials must be such as can be made on a worker: {reason}; hooks and "
            "credentials of your own have to be importable there"
        )

    def targets(self) -> list[Target]:
        """The targets, by their places among all as names."""
        auths = [self._auth(kind, made_from) for kind, made_from in self.auths]
        accounts = [Account(rate) for rate in self.rates]
        return [
            Target(
                one.stream.endpoint,
                one.stream.project_id,
                auth=auths[one.auth],
                workspace_id=one.stream.workspace_id,
                name=str(one.index),
                account=accounts[one.account],
            )
            for one in self.projects
        ]

    def _auth(self, kind: str, made_from: Any) -> Auth:
        if kind not in _KINDS:
            auth: Auth = made_from
            return auth
        made: Auth = _KINDS[kind](**made_from)
        return made


def plans(
    targets: Sequence[Target],
    streams: Sequence[Stream],
    shards: int,
    settings: Settings,
    options: WatchOptions,
) -> list[Plan]:
    """One plan for each shard: each target is in one of them, and each account's budget is divided."""
    payers = [
        (stream.endpoint, payer_of(target.auth)) for stream, target in zip(streams, targets, strict=True)
    ]
    of_all = Counter(payers)
    return [
        _plan(
            {index: targets[index] for index in range(shard, len(targets), shards)},
            streams,
            payers,
            of_all,
            settings,
            options,
        )
        for shard in range(shards)
    ]


def _plan(
    targets: Mapping[int, Target],
    streams: Sequence[Stream],
    payers: Sequence[tuple[str, Hashable]],
    of_all: Mapping[tuple[str, Hashable], int],
    settings: Settings,
    options: WatchOptions,
) -> Plan:
    of_shard = Counter(payers[index] for index in targets)
    accounts = {payer: place for place, payer in enumerate(of_shard)}
    auths = {id(target.auth): target.auth for target in targets.values()}
    places = {key: place for place, key in enumerate(auths)}
    budget = settings.requests_per_second
    return Plan(
        [
            Project(index, streams[index], places[id(target.auth)], accounts[payers[index]])
            for index, target in targets.items()
        ],
        [_made_from(auth, settings) for auth in auths.values()],
        [None if budget is None else budget * count / of_all[payer] for payer, count in of_shard.items()],
        attrs.evolve(settings, requests_per_second=None),
        options,
    )


def _made_from(auth: Auth, settings: Settings) -> tuple[str, Any]:
    kind = type(auth)
    if _KINDS.get(kind.__name__) is not kind:
        return "", auth
    made_from: dict[str, Any] = auth.arguments()  # type: ignore[attr-defined]
    return kind.__name__, {**made_from, "settings": settings} if kind in _WITH_SETTINGS else made_from


def streams_of(targets: Sequence[Target], settings: Settings, workspace_id: str | None) -> list[Stream]:
    """What a checkpoint keeps of each target. Raises :class:`ConfigError` for what one says that is wrong."""
    names: dict[str, Stream] = {}
    for target in targets:
        if target.name in names:
            raise ConfigError(f"two targets are called {target.name!r}: give each a name of its own")
        names[target.name] = _stream_of(target, settings, workspace_id)
    (stream, count), *_ = Counter(names.values()).most_common(1)
    if count > 1:
        raise ConfigError(f"two targets are the same: {stream}")
    return [*names.values()]


def _stream_of(target: Target, settings: Settings, workspace_id: str | None) -> Stream:
    if target.endpoint is None or target.project_id is None or target.account is not None:
        raise ConfigError(
            f"target {target.name!r}: on a cluster endpoint and project_id must be given, and no account"
        )
    try:
        endpoint = wire.endpoint(target.endpoint, allow_insecure=settings.allow_insecure)
    except ConfigError as error:
        raise ConfigError(f"target {target.name!r}: {error}") from None
    return Stream(endpoint, target.project_id, workspace_id or target.workspace_id or wire.DEFAULT_WORKSPACE)
