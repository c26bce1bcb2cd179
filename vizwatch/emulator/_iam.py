"""Who may ask: tokens with the project they are scoped to, Keystone's password call, and AK/SK signatures."""

from __future__ import annotations

import datetime as dt
import hashlib
import hmac
import math
import re
import secrets
import urllib.parse
import uuid
from collections.abc import Iterable, Mapping
from typing import Any, Final

import attrs

from vizwatch.emulator import _checks, _refusals

_MAX_TOKENS: Final = 10_000
_ALGORITHM: Final = "SDK-HMAC-SHA256"
_AUTHORIZATION: Final = re.compile(
    _ALGORITHM
    + r" Access=(?P<access>[^,\s]+), SignedHeaders=(?P<signed>[^,\s]+), Signature=(?P<signature>\S+)"
)
_MAX_SKEW: Final = dt.timedelta(minutes=15)
_UNSIGNED: Final = "UNSIGNED-PAYLOAD"
_IDS: Final = uuid.UUID("2c1b5a5e-6d0e-4e0c-9d53-0f3a7f1c9b6e")


def id_of(name: str) -> str:
    """The id that a project, user or domain of this name has here: always the same."""
    return uuid.uuid5(_IDS, name).hex


def region_of(project: str, regions: Iterable[str]) -> str | None:
    """The region that a project's name begins with; ``None``: it names none."""
    return next((one for one in regions if project == one or project.startswith(f"{one}_")), None)


@attrs.define(kw_only=True)
class _Issued:
    project_id: str | None
    expires: float


@attrs.define
class Tokens:
    """The tokens in use: one that is valid for every project, and those of the password call."""

    _issued: dict[bytes, _Issued] = attrs.field(factory=dict, repr=False)
    """By the tokens' digests: how long a look-up takes tells nothing about a token."""

    def issue(self, project_id: str | None, expires: float) -> str:
        """A new token, scoped to one project, or to none."""
        token = secrets.token_urlsafe(96)
        self._keep(token, _Issued(project_id=project_id, expires=expires))
        return token

    def _keep(self, token: str, issued: _Issued) -> None:
        self._issued[_digest(token)] = issued
        if len(self._issued) > _MAX_TOKENS:
            del self._issued[next(iter(self._issued))]

    def expire(self, general: str, now: float) -> None:
        """Every token in use expires now, and `general` is none of them any more."""
        for issued in self._issued.values():
            issued.expires = min(issued.expires, now)
        self._keep(general, _Issued(project_id=None, expires=now))

    def check(self, token: str, general: str, project_id: str, now: float) -> None:
        """Refuse a token that is missing, unknown, expired, or scoped to another project."""
        if not token:
            raise _refusals.service(401, "0201", "The request has no token.")
        if _same(token, general):
            return
        issued = self._issued.get(_digest(token))
        if issued is None:
            raise _refusals.service(401, "0203", "The token is invalid.")
        if now >= issued.expires:
            raise _refusals.service(401, "0202", "The token has expired.")
        if issued.project_id is None:
            raise _refusals.service(401, "0212", "The token contains no project.")
        if issued.project_id != project_id:
            raise _refusals.other_project()

    def expiry(self, token: str, general: str, now: float) -> float:
        """When a token that another one is asked for with expires; refuse one that is not in use."""
        if _same(token, general):
            return math.inf
        issued = self._issued.get(_digest(token))
        if issued is None or now >= issued.expires:
            raise _refusals.iam(401, "Unauthorized", "The token is invalid or has expired.")
        return issued.expires


def _bytes(text: str) -> bytes:
    # Headers and JSON can carry lone surrogates, which UTF-8 has no bytes for.
    return text.encode(errors="surrogatepass")


def _digest(token: str) -> bytes:
    return hashlib.sha256(_bytes(token)).digest()


def _same(given: str, known: str) -> bool:
    return hmac.compare_digest(_bytes(given), _bytes(known))


@attrs.frozen(kw_only=True)
class Credentials:
    """What the password call must say."""

    user: str
    password: str = attrs.field(repr=False)
    domain: str

    def check(self, body: Mapping[str, Any]) -> None:
        """Refuse another user, domain or password; all three with one text, as Keystone does."""
        user = _object(_object(_identity(body, "password"), "password"), "user")
        password = user.get("password")
        # Every one is compared, so that the time tells nothing about which one is wrong.
        right = [
            _is(user, self.user),
            isinstance(password, str) and _same(password, self.password),
            # An id says which user it is on its own.
            "id" in user or _is(_object(user, "domain"), self.domain),
        ]
        if not all(right):
            raise _refusals.iam(401, "Unauthorized", "The username or password is wrong.")


def given_token(body: Mapping[str, Any]) -> str | None:
    """The token with which another one is asked for; ``None``: the call is another one."""
    if _object(_object(body, "auth"), "identity").get("methods") != ["token"]:
        return None
    token = _object(_identity(body, "token"), "token").get("id")
    if not isinstance(token, str):
        raise _refusals.iam(400, "Bad Request", "Expecting to find id in token.")
    return token


def scope_of(body: Mapping[str, Any], named: Mapping[str, str], domain: str) -> dict[str, str] | None:
    """The id and name of the project that a token is asked for; ``None``: for none.

    `named` has the ids of projects whose names are not turned into ids as all others are.
    """
    scope = _object(body, "auth").get("scope")
    if not isinstance(scope, Mapping) or "project" not in scope:
        return None
    project = _object(scope, "project")
    project_id, name = project.get("id"), project.get("name")
    if project_id is None and isinstance(name, str) and name:
        # Keystone wants the domain beside a name; the publishers' samples go without.
        if "domain" in project and not _is(_object(project, "domain"), domain):
            raise _refusals.iam(401, "Unauthorized", "The domain of the scope's project is unknown.")
        return {"id": named.get(name) or id_of(name), "name": name}
    if not isinstance(project_id, str) or not _checks.is_identifier(project_id):
        raise _refusals.iam(400, "Bad Request", "The scope's project needs an id or a name.")
    names = {known: name for name, known in named.items()}
    return {"id": project_id, "name": names.get(project_id, project_id)}


def _identity(body: Mapping[str, Any], method: str) -> Mapping[str, Any]:
    identity = _object(_object(body, "auth"), "identity")
    if identity.get("methods") != [method]:
        raise _refusals.iam(400, "Bad Request", "identity.methods must be ['password'] or ['token'].")
    return identity


def _is(given: Mapping[str, Any], name: str) -> bool:
    """Whether a user or domain, given by id or by name, is the one of this name."""
    key, known = ("id", id_of(name)) if "id" in given else ("name", name)
    value = given.get(key)
    return isinstance(value, str) and _same(value, known)


def _object(body: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = body.get(name)
    if not isinstance(value, Mapping):
        raise _refusals.iam(400, "Bad Request", f"Expecting to find {name} in the request body.")
    return value


@attrs.frozen(kw_only=True)
class Signed:
    """A request as its AK/SK signature covers it."""

    method: str
    path: str
    """As sent, still quoted."""
    query: str
    """As sent, still quoted, without the question mark."""
    headers: Mapping[str, str]
    body: bytes = attrs.field(repr=False)

    def check(self, access_key: str, secret_key: str, security_token: str | None, wall: dt.datetime) -> None:
        """Refuse a wrong access key, security token, date or signature."""
        found = _AUTHORIZATION.fullmatch(self.headers.get("Authorization", ""))
        if found is None:
            raise _refusals.unauthenticated("format")
        if not _same(found["access"], access_key):
            raise _refusals.unauthenticated(f"Get secretKey failed,ak:{found['access']},err:ak not exist")
        if not _same(self.headers.get("X-Security-Token", ""), security_token or ""):
            raise _refusals.unauthenticated("security token")
        stamp = self.headers.get("X-Sdk-Date", "")
        _check_date(stamp, wall)
        canonical = self._canonical(found["signed"].split(";"))
        digest = hashlib.sha256(_bytes(canonical)).hexdigest()
        text = f"{_ALGORITHM}\n{stamp}\n{digest}".encode()
        expected = hmac.new(secret_key.encode(), text, hashlib.sha256).hexdigest()
        if not _same(found["signature"], expected):
            # As the gateways do: clients must not show it, since a security token can be in it.
            echo = canonical.replace("\n", "|")
            raise _refusals.unauthenticated(f"verify aksk signature fail, canonicalRequest:{echo}")

    def _canonical(self, signed: list[str]) -> str:
        path = "/".join(
            urllib.parse.quote(part, safe="~") for part in urllib.parse.unquote(self.path).split("/")
        )
        pairs = sorted(urllib.parse.parse_qsl(self.query, keep_blank_values=True))
        query = "&".join(f"{_quoted(key)}={_quoted(value)}" for key, value in pairs)
        headers = "".join(f"{name}:{self.headers.get(name, '').strip()}\n" for name in signed)
        body = hashlib.sha256(self.body).hexdigest()
        if self.body and self.headers.get("X-Sdk-Content-Sha256") == _UNSIGNED:
            body = _UNSIGNED
        ended = path if path.endswith("/") else f"{path}/"
        return "\n".join((self.method, ended, query, headers, ";".join(signed), body))


def _check_date(stamp: str, wall: dt.datetime) -> None:
    try:
        date = dt.datetime.strptime(stamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=dt.UTC)
    except ValueError:
        raise _refusals.unauthenticated("date") from None
    if abs(date - wall) > _MAX_SKEW:
        # The text of both clouds' gateways, as their users have reported it.
        raise _refusals.unauthenticated(
            "calc aksk signature fail:signature expired, "
            f"signature time:{stamp},server time:{wall:%Y%m%dT%H%M%SZ}"
        )


def _quoted(text: str) -> str:
    return urllib.parse.quote(text, safe="~")
