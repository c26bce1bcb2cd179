"""Every option of the emulator, checked when it is made."""

from __future__ import annotations

import secrets
from typing import Any, Final

import attrs

from vizwatch import JobStatus
from vizwatch.emulator import _checks
from vizwatch.emulator._checks import Life, checked
from vizwatch.emulator._recording import Recording, read

_DEFAULTS: Final = {"search_limit": 64, "per_page_limit": 1_000, "refusal_status": 400}
"""Of the options that a recording may speak of."""
_NOT_GIVEN: Final[Any] = None

LIFE: Final[Life] = (
    (0.0, JobStatus.INIT),
    (1.0, JobStatus.SUBMIT_TRYING),
    (3.0, JobStatus.WAITING),
    (8.0, JobStatus.RUNNING),
)


def _secret(factory: Any) -> Any:
    return attrs.field(
        factory=factory, repr=False, validator=lambda _, field, value: _checks.secret(field.name, value)
    )


def new_secret() -> str:
    """A token or key that nobody can guess."""
    return secrets.token_urlsafe(32)


def _life(value: Any) -> Life:
    return _checks.life("life", value)


def _regions(value: Any) -> tuple[str, ...]:
    return _checks.regions("regions", value)


@attrs.define(kw_only=True, eq=False)
class Options:
    """How an emulator listens, what it holds and what it refuses. All times are seconds.

    Raises ``ConfigError`` when made with a value out of its range.
    """

    host: str = checked(_checks.text, "127.0.0.1", low=1, high=255)
    """The address to listen on. The admin routes ask for no token: keep to the loopback interface."""
    port: int = checked(_checks.whole, 0, low=0, high=65_535)
    """The port that the first region listens on; 0 lets the system choose one, as it does for the others."""
    regions: tuple[str, ...] = attrs.field(default=("emulated",), converter=_regions)
    """The regions, each with an endpoint of its own; one IAM, at every endpoint, serves them all.

    A project belongs to the region that its name begins with (``eu-de``, ``eu-de_team``), as in both clouds,
    or else to the one where it is first used; the endpoints of other regions refuse it (0207).
    """
    jobs: int = checked(_checks.whole, 0, low=0, high=1_000_000)
    """How many jobs of the normal life the default project has at the start."""
    life: Life = attrs.field(default=LIFE, converter=_life)
    """What a job goes through after its creation and after each restart: pairs (seconds since, status).

    The order is documented, how long each status lasts is not. ``None`` as the last status deletes the job.
    """
    kill_seconds: float = checked(_checks.number, 2.0)
    """How long a job is KILLING when it is stopped or deleted."""
    speed: float = checked(_checks.number, 1.0, low=1e-6, high=1e6)
    """Seconds of the cloud's clock in one second of the event loop's."""
    seed: int = checked(_checks.whole, 0, low=0, high=2**63 - 1)
    """What all randomness of the cloud's state comes from; tokens are always unpredictable."""

    project_id: str = checked(_checks.identifier, "5f3c0d9a4b7e4f0c8a61d2e97b3c4f10")
    """The default project, in the first region; others spring up when first used with a valid token."""
    project_name: str = checked(_checks.text, "vizwatch", low=1, high=64)
    """The name that the password call knows the default project by."""
    token: str = _secret(new_secret)
    """Valid for every project, without end; only a ``token_expiry`` fault replaces it by another one."""
    user: str = checked(_checks.text, "emulator", low=1, high=256)
    """For the password call."""
    password: str = _secret(new_secret)
    """For the password call."""
    domain: str = checked(_checks.text, "emulator", low=1, high=256)
    """For the password call."""
    token_ttl: float = checked(_checks.number, 86_400.0, low=1)
    """How long a token of the password call is valid; 24 hours, by the documents."""
    access_key: str = _secret(new_secret)
    """For AK/SK signatures: with ``X-Project-Id`` for every project, without it for the default one."""
    secret_key: str = _secret(new_secret)
    """For AK/SK signatures."""
    security_token: str | None = checked(_checks.secret, None, secret=True)
    """What ``X-Security-Token`` must be beside a signature; ``None``: the keys are permanent ones."""
    clock_skew: float = checked(_checks.number, 0.0, low=-1e9)
    """How far the gateway's wall clock is ahead of this machine's: it refuses signatures 15 minutes off."""

    search_limit: int = checked(_checks.whole, _NOT_GIVEN, low=0, high=10_000)
    """The longest ``search_content``: 64, as the REST documents say; 100 by the SDK's and by one sample."""
    per_page_limit: int = checked(_checks.whole, _NOT_GIVEN, low=1, high=100_000)
    """The largest ``per_page``: 1000, as today's REST documents say; 100 by older ones and the SDK's."""
    quota: int | None = checked(_checks.whole, None, low=0, high=1_000_000)
    """How many jobs a project may have before create is refused (0118); ``None``: any number."""
    rate_limit: int | None = checked(_checks.whole, None, low=1, high=1_000_000)
    """How many requests the gateway lets through in each `rate_window`; ``None``: any number."""
    rate_window: float = checked(_checks.number, 300.0, low=0.001)
    """Another service of the platform allows 200 requests in 5 minutes."""
    refusal_status: int = checked(_checks.whole, _NOT_GIVEN, low=200, high=499)
    """The HTTP status of refusals 0103, 0104 and 0105, which the documents leave open; 400 by default."""
    string_numbers: bool = checked(_checks.switch, default=False)
    """Whether create answers with strings for numbers, as the documents' sample of create does."""
    max_body: int = checked(_checks.whole, 2**20, low=1_024, high=2**30)
    """The largest request body that is read, in bytes."""
    recording: Recording = attrs.field(default=None, converter=read, repr=False)
    """A file of ``vizwatch doctor --record``, or its JSON: answers, jobs and limits are then as there.

    What is given for an option goes before it.
    """
    request_log: int = checked(_checks.whole, 100_000, low=0, high=10_000_000)
    """How many requests `requests` remembers, the latest ones."""

    def __attrs_post_init__(self) -> None:
        for name, value in {**_DEFAULTS, **self.recording.options}.items():
            if getattr(self, name) is None:
                setattr(self, name, value)
