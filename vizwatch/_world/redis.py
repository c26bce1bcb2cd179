"""A checkpoint in a Redis."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import math
import os
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from secrets import token_hex
from typing import TYPE_CHECKING, Any, Final

import attrs

from vizwatch._rules import fencing
from vizwatch._rules.fencing import Claim, Step
from vizwatch._rules.location import Location, locate
from vizwatch._rules.records import LONGEST
from vizwatch._values import checks
from vizwatch._values.errors import CheckpointError, ConfigError
from vizwatch._values.secrets import hidden
from vizwatch._values.text import printable, redacted
from vizwatch._world.batching import Batches, parts
from vizwatch._world.checkpoint import Stream

if TYPE_CHECKING:
    from redis.asyncio import Redis

_LOG: Final = logging.getLogger("vizwatch")
_WITHIN: Final = 5.0
"""How long connecting may take, and a part of an answer, in seconds."""
_IN_ALL: Final = 2 * _WITHIN
_TO_RELEASE: Final = 1.0
_CONNECTIONS: Final = 8
"""How many are asked at once; who waits for its turn does so for as long as others are answered."""
_A_PAGE: Final = 1_000
"""How many records are read at once."""
_LOOK: Final = 0.25
"""How long to wait until looking again whether a stream is free, in seconds."""
_DAMAGED: Final = "what is kept there is damaged, and was left as it is: use a copy of it, or another prefix"
_JOB_ID: Final = re.compile(rb"0|[1-9][0-9]{0,18}")
_PREFIX: Final = re.compile(r"[0-9A-Za-z_.:/-]{1,64}")

_LOST: Final = (
    "another process has taken it over, as this one did not renew its lease in time; what it gives out since "
    "is not kept: close its client"
)

Saved = Mapping[Stream, Mapping[int, bytes | None]]
Records = Mapping[Claim, Mapping[int, bytes | None]]


class RedisCheckpoint:
    """The places of consumers in a Redis, for many processes, each of them with streams of its own.

    ::

        checkpoint = vizwatch.RedisCheckpoint("rediss://watcher:secret@redis.example.com/0")
        async for transition in client.watch_jobs(checkpoint=checkpoint):
            ...

    A stream, all jobs of a workspace or single jobs of a project, is one process's by a lease, which is
    renewed while that lives; what it writes after another one has taken the stream over changes nothing. Who
    wants a stream that is held waits for as long as a lease lasts, and a second. While the Redis is away,
    watches go on, and what they gave is written once it is back. What it has not on its disk is lost with
    it, and comes once more: let it append to a file, and evict nothing.

    Needs the extra `redis`, and a Redis 5 or later. In a Redis Cluster all keys of a prefix are in one slot:
    name the node that has it.

    Args:
        url: ``redis://[user:password@]host[:port][/database]``, with ``rediss`` for TLS
            (``?ssl_ca_certs=FILE``, ``ssl_certfile``, ``ssl_keyfile``), or ``unix:///path[?db=number]``. A
            checkpoint with a password in it cannot be pickled.
        url_env: Instead of it the environment variable that has it, of the process where a stream is opened.
        window: How long what has come is gathered before it is written, in seconds. As nothing is given
            before it is written, a transition may come two windows later for that.
        prefix: What the names of keys begin with: other prefixes are other checkpoints.
        lease: How long a stream stays taken when its process was killed, in seconds.

    Raises:
        ConfigError: An argument is wrong. What is wrong with the variable is raised when it is first used.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        url_env: str | None = None,
        window: float = 0.2,
        prefix: str = "vizwatch",
        lease: float = 15.0,
    ) -> None:
        url = hidden(url)
        self._location: Location | None = None
        self._url_env = url_env
        if (url is None) == (url_env is None):
            raise ConfigError("give either url or url_env, the environment variable that has the URL")
        self._url = url
        if url_env is not None:
            checks.text("url_env", url_env, low=1, high=255)
        if url is not None:
            self._location = locate(url, "url")
        self.window = checks.seconds("window", window, high=1)
        self.lease = checks.seconds("lease", lease, low=1, high=3600)
        if not isinstance(prefix, str) or not _PREFIX.fullmatch(prefix):
            raise checks.refused("prefix", prefix, "1 to 64 of the characters 0-9 A-Z a-z _ . : / -")
        self.prefix = prefix
        self._claims: dict[Stream, Claim | None] = {}
        """The open streams; ``None`` for those that are being opened or closed."""
        self._lost: set[Stream] = set()
        """Those of them that another process has taken over."""
        self._server: _Server | None = None
        self._renewing: asyncio.Task[None] | None = None
        self._batches = Batches(self.window, self._write)

    async def open(self, stream: Stream) -> None:
        """Takes the stream; waits while it is held. As of :class:`Checkpoint`."""
        if stream in self._claims:
            raise self._refused(
                f"{stream}: are watched with it already; share one client, or give each a prefix of its own"
            )
        self._claims[stream] = None
        try:
            if self._server is None:
                self._server = _Server(self._located())
            with _reached():
                self._claims[stream] = await self._taken(stream)
        except BaseException:
            await self.close(stream)
            raise
        if self._renewing is None:
            self._renewing = asyncio.create_task(self._renew())

    async def load(self, stream: Stream, job_ids: Collection[int] | None) -> Mapping[int, bytes]:
        """The records. As of :class:`Checkpoint`."""
        key = fencing.jobs_key(self.prefix, self._held([stream])[stream])
        with _reached():
            return await (self._all(key) if job_ids is None else self._some(key, job_ids))

    async def save(self, records: Saved) -> None:
        """Keeps records, with all that others save within the window in one step."""
        self._held(records)
        await self._batches.put(records)
        self._held(records)

    async def close(self, stream: Stream) -> None:
        """Gives the stream up, and closes the connections after the last one."""
        claim, self._claims[stream] = self._claims.get(stream), None
        try:
            # Where the Redis is away, closing many streams does not wait for each: leases end.
            if claim is not None and stream not in self._lost and not self._opened().is_away:
                with contextlib.suppress(CheckpointError, OSError):
                    await self._step(Step.RELEASE, [claim])
        finally:
            self._lost.discard(stream)
            del self._claims[stream]
            if not self._claims:
                await self._disconnect()

    async def _disconnect(self) -> None:
        server, self._server = self._server, None
        renewing, self._renewing = self._renewing, None
        if renewing is not None:
            renewing.cancel()
            await asyncio.wait([renewing])
        await self._batches.aclose()
        if server is not None:
            await server.aclose()

    # --- holding streams ---------------------------------------------------------------------------------

    async def _taken(self, stream: Stream) -> Claim:
        claim = Claim(stream.endpoint, stream.project_id, stream.workspace_id, token_hex(8))
        loop = asyncio.get_running_loop()
        until = loop.time() + self.lease + 1
        while True:
            match await self._step(Step.TAKE, [claim]):
                case b"done", bytes(token):
                    return attrs.evolve(claim, token=token.decode("ascii", "replace"))
                case b"held", int(milliseconds):
                    left = until - loop.time()
                case _:
                    raise self._refused(_DAMAGED)
            if left <= 0:
                raise self._refused(
                    f"{stream}: it is in use, most likely by another process, whose lease goes on for "
                    f"{milliseconds / 1000:.1f} s unless it is renewed; close that, or use another prefix"
                )
            await asyncio.sleep(min(left, _LOOK))

    def _held(self, streams: Collection[Stream]) -> dict[Stream, Claim]:
        """The claims of open streams. Raises if one of them is lost."""
        for stream in streams:
            if stream in self._lost:
                raise self._refused(f"{stream}: {_LOST}")
        return {stream: claim for stream in streams if (claim := self._claims[stream]) is not None}

    async def _renew(self) -> None:
        """Lets no lease end."""
        while True:
            await asyncio.sleep(self.lease / 3)
            held = self._held(self._claims.keys() - self._lost)
            with contextlib.suppress(CheckpointError, OSError):  # of which the next save tells, too
                self._lose(held, await self._step(Step.RENEW, list(held.values())))

    async def _write(self, batches: Sequence[Saved]) -> None:
        """Writes each whole, but for those of lost streams: who saves these is told, and no other."""
        while whole := [batch for batch in batches if self._lost.isdisjoint(batch)]:
            records: dict[Stream, dict[int, bytes | None]] = {}
            for stream, by_job in itertools.chain.from_iterable(batch.items() for batch in whole):
                records.setdefault(stream, {}).update(by_job)
            held = self._held(records)
            of_claims = {claim: records[stream] for stream, claim in held.items()}
            answer = await self._step(Step.SAVE, list(of_claims), of_claims)
            self._lose(held, answer)
            if answer[0] == b"done":
                return
            if self._lost.isdisjoint(held):
                raise self._refused(_DAMAGED)

    def _lose(self, held: Mapping[Stream, Claim], answer: tuple[bytes, object]) -> None:
        """Takes note of the streams that are lost."""
        match answer:
            case (b"done" | b"lost", [*numbers]):
                lost = {stream for number, stream in enumerate(held, start=1) if number in numbers}
            case _:
                raise self._refused(_DAMAGED)
        for stream in lost:
            if self._claims.get(stream) is held[stream]:
                self._lost.add(stream)
                _LOG.error("%s", self._refused(f"{stream}: {_LOST}"))

    async def _step(
        self, step: Step, claims: Sequence[Claim], records: Records | None = None
    ) -> tuple[bytes, object]:
        """What the Redis answers: a word, and what that is about. Raises for what nobody can use."""
        command = fencing.command(step, self.prefix, self.lease, claims, records or {})
        within = _TO_RELEASE if step is Step.RELEASE else _IN_ALL
        match await self._opened().ask(*command, within=within):
            case [bytes(b"done" | b"lost" | b"held" as word), about]:
                return word, about
            case [b"elsewhere", [int(number), bytes(endpoint)]] if 0 < number <= len(claims):
                claim, was = claims[number - 1], endpoint.decode("utf-8", "replace")
                raise self._refused(
                    f"project {claim.project_id} was watched at {printable(was, 100)}, and is to be at "
                    f"{claim.endpoint} now; give it that endpoint back, or use another database or prefix, "
                    "where all is found anew"
                )
            case [b"newer", bytes(found)]:
                version = printable(found.decode("ascii", "replace"), 20)
                raise self._refused(
                    f"it is of a newer version of vizwatch: of format {version}, and this one knows "
                    f"{fencing.FORMAT}"
                )
            case _:
                raise self._refused(_DAMAGED)

    # --- reading records ---------------------------------------------------------------------------------

    async def _all(self, key: str) -> dict[int, bytes]:
        kept: dict[int, bytes] = {}
        cursor = 0
        while True:
            match await self._opened().ask("HSCAN", key, cursor, "COUNT", _A_PAGE, within=_IN_ALL):
                case int(cursor), dict(page):
                    kept |= self._sound(page.items())
                case _:
                    raise self._refused(_DAMAGED)
            if not cursor:
                return kept

    async def _some(self, key: str, job_ids: Collection[int]) -> dict[int, bytes]:
        kept: dict[int, bytes] = {}
        for page in parts(job_ids, _A_PAGE):
            values = await self._opened().ask("HMGET", key, *page, within=_IN_ALL)
            if not isinstance(values, list) or len(values) != len(page):
                raise self._refused(_DAMAGED)
            found = zip((b"%d" % job_id for job_id in page), values, strict=True)
            kept |= self._sound((field, value) for field, value in found if value is not None)
        return kept

    def _sound(self, fields: Iterable[tuple[object, object]]) -> dict[int, bytes]:
        kept: dict[int, bytes] = {}
        for field, value in fields:
            if not isinstance(field, bytes) or not _JOB_ID.fullmatch(field):
                raise self._refused(_DAMAGED)
            if not isinstance(value, bytes) or len(value) > LONGEST:
                raise self._refused(_DAMAGED)
            kept[int(field)] = value
        return kept

    # --- which Redis -------------------------------------------------------------------------------------

    def _located(self) -> Location:
        if self._location is not None:
            return self._location
        name = self._url_env or ""
        if not os.environ.get(name):
            raise ConfigError(f"{name} is not set: it is to have the URL of a Redis")
        return locate(hidden(os.environ[name]), name)

    def _opened(self) -> _Server:
        if self._server is None:
            raise ConfigError("no stream of this checkpoint is open")
        return self._server

    def _refused(self, reason: str) -> CheckpointError:
        where = self._location if self._server is None else self._server.location
        return CheckpointError(f"checkpoint {where}, prefix {self.prefix}: {reason}")

    def __reduce__(self) -> tuple[Callable[..., RedisCheckpoint], tuple[dict[str, Any]]]:
        if self._location is not None and self._location.secrets:
            raise TypeError(
                "a checkpoint with a password in its URL is not pickled: "
                "RedisCheckpoint(url_env='VIZWATCH_REDIS_URL') reads it where it is used"
            )
        url = None if self._url is None else str(self._url)
        options = {name: getattr(self, name) for name in ("window", "prefix", "lease")}
        return _made, ({"url": url, "url_env": self._url_env, **options},)

    def __repr__(self) -> str:
        if self._location is None:
            return f"RedisCheckpoint(url_env={self._url_env!r})"
        return f"RedisCheckpoint('{self._location}')"


def _made(arguments: dict[str, Any]) -> RedisCheckpoint:
    return RedisCheckpoint(**arguments)


class _Server:
    """A Redis that is asked, with what it fails with explained."""

    def __init__(self, location: Location) -> None:
        self.location = location
        self.is_away = False
        """Whether it did not do what it was asked last."""
        self._answered = -math.inf
        """When it did so last."""
        self._turns = asyncio.Semaphore(_CONNECTIONS)
        self._client: Any = _client(location)

    async def ask(self, *command: str | bytes | int, within: float) -> object:
        """Its answer, within some seconds once it is this one's turn.

        Raises:
            CheckpointError: A key is of another type.
            ConnectionError: There is no answer, also to others meanwhile, or a refusal that may pass.
        """
        loop = asyncio.get_running_loop()
        began = loop.time()
        async with self._turns:
            silence = loop.time() - max(began, self._answered)
            # Those before have waited in vain; if each tried on its own, the last would wait for hours.
            if silence > min(within, _WITHIN) / 2:
                raise self._of_ours(TimeoutError(), round(silence, 1))
            return await self._ask(command, within)

    async def _ask(self, command: tuple[str | bytes | int, ...], within: float) -> object:
        before = _cancellations()
        try:
            async with asyncio.timeout(within):
                answer = await self._client.execute_command(*command)
        except Exception as error:  # noqa: BLE001 - of redis-py, and of what it makes of any answer
            problem = self._of_ours(error, within)
        else:
            self.is_away, self._answered = False, asyncio.get_running_loop().time()
            if _cancellations() > before:
                raise asyncio.CancelledError  # redis-py has lost it
            return answer
        # Outside of the except clause: what redis-py was doing, with the password, is not to hang on it.
        self.is_away = isinstance(problem, OSError)
        if self.is_away:
            # It may have become a replica, with another one at its address.
            with contextlib.suppress(Exception):  # the connections are given up, one way or the other
                async with asyncio.timeout(_TO_RELEASE):
                    await self._client.connection_pool.disconnect(inuse_connections=False)
        raise problem

    def _of_ours(self, error: Exception, within: float) -> CheckpointError | ConnectionError:
        said = str(error)
        if "WRONGTYPE" in said:
            return CheckpointError(f"checkpoint {self.location}: {_DAMAGED}")
        text = f"{type(error).__name__}: {said}" if said else f"no answer within {within:g} s"
        if "unauthenticated" in said or "NOAUTH" in said:
            text = "it wants a password, which the URL does not give"
        text = printable(redacted(text, self.location.secrets), 200)
        return ConnectionError(f"checkpoint {self.location}: it cannot be used: {text}")

    async def aclose(self) -> None:
        await self._client.aclose()


def _cancellations() -> int:
    task = asyncio.current_task()
    return 0 if task is None else task.cancelling()


@contextlib.contextmanager
def _reached() -> Iterator[None]:
    """What may pass is an error for whoever wants to begin."""
    try:
        yield
    except OSError as error:
        problem = CheckpointError(str(error))
    else:
        return
    raise problem


def _client(location: Location) -> Redis:
    try:
        from redis.asyncio import Connection, ConnectionPool, Redis, SSLConnection  # noqa: PLC0415
        from redis.asyncio import UnixDomainSocketConnection as SocketConnection  # noqa: PLC0415
        from redis.credentials import UsernamePasswordCredentialProvider  # noqa: PLC0415 - slow to import
    except ImportError:
        raise ConfigError("RedisCheckpoint needs redis-py: pip install 'vizwatch[redis]'") from None
    options: dict[str, Any] = {"path": location.path}
    kind: type[Any] = SocketConnection
    if location.host:
        options = {"host": location.host, "port": location.port}
        kind = Connection
    if location.is_tls:
        options |= {"ssl_cert_reqs": "required", "ssl_check_hostname": True, **location.tls_files}
        kind = SSLConnection
    if location.secrets:
        # As options, some versions of redis-py show them in the repr of a pool.
        provider = UsernamePasswordCredentialProvider(location.username, location.password)
        options["credential_provider"] = provider
    pool = ConnectionPool(
        connection_class=kind,
        db=location.database,
        protocol=2,
        socket_connect_timeout=_WITHIN,
        socket_timeout=_WITHIN,
        **options,
    )
    return Redis.from_pool(pool)
