"""X1: no credential is in any error, log, traceback, pickle, copy or repr, whatever a server echoes."""

from __future__ import annotations

import asyncio
import copy
import html
import json
import logging
import pickle
import re
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

import pytest
from canaries import shown
from servers import RawServer, http

import vizwatch
from vizwatch import AkSkAuth, Client, PasswordAuth, RedisCheckpoint, TokenAuth

pytestmark = pytest.mark.looptime

CANARY = "canary-5f2e"
PROJECT = "p1"


class Echo(RawServer):
    """Repeats all that a request said in one place of its answer, and gives tokens to who asks for one."""

    def __init__(self, place: str, *, of_token_calls: bool) -> None:
        super().__init__(self._reply)
        self._place = place
        self._of_token_calls = of_token_calls

    async def _reply(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = self.requests[-1].decode()
        if "/auth/tokens" in request.partition("\r\n")[0] and not self._of_token_calls:
            times = {"issued_at": "2026-01-01T00:00:00Z", "expires_at": "2026-01-02T00:00:00Z"}
            headers = (f"X-Subject-Token: {CANARY}-got-7c1d", "Content-Type: application/json")
            writer.write(http({"token": times}, status="201 Created", headers=headers))
        else:
            writer.write(PLACES[self._place](request))
        await writer.drain()


def _line(request: str) -> str:
    return " ".join(request.split())


# Where a server, a gateway or a proxy may repeat a request; what follows is cut only after it was cleaned.
PLACES: dict[str, Callable[[str], bytes]] = {
    "message": lambda request: http({"error_msg": request}, status="400 Bad Request"),
    "message of a 401": lambda request: http({"error_msg": request}, status="401 Unauthorized"),
    "message of a 403": lambda request: http(
        {"error_code": "APIGW.0301", "error_msg": f"canonicalRequest:{request}"}, status="403 Forbidden"
    ),
    "message of a 404": lambda request: http(
        {"error_code": "ModelArts.2786", "error_msg": request}, status="404 Not Found"
    ),
    "message of a 429": lambda request: http({"error_msg": request}, status="429 Too Many Requests"),
    "message of a 500": lambda request: http({"error_msg": request}, status="500 Oh"),
    "message of a failure with 200": lambda request: http({"is_success": False, "error_msg": request}),
    "nested message": lambda request: http({"error": {"message": request}}, status="400 Bad Request"),
    "words backwards": lambda request: http(
        {"error_msg": " ".join(request.replace(",", " ").split()[::-1])}, status="400 Bad Request"
    ),
    "JSON in JSON": lambda request: http({"error_msg": json.dumps(request)}, status="400 Bad Request"),
    "ASCII in a page": lambda request: http(
        raw=b"<p>" + html.escape(request).encode("ascii", "xmlcharrefreplace"), status="404 Not Found"
    ),
    "percent-encoded": lambda request: http({"error_msg": quote(request)}, status="400 Bad Request"),
    "code": lambda request: http({"error_code": request, "error_msg": "x"}, status="400 Bad Request"),
    "request id": lambda request: http({}, status="400 No", headers=(f"X-request-id: {_line(request)}",)),
    "type of a page": lambda request: http(
        raw=b"<p>", headers=(f"Content-Type: text/html; {_line(request)}",)
    ),
    "page": lambda request: http(raw=f"<pre>{request}".encode(), headers=("Content-Type: text/html",)),
    "page of a 502": lambda request: http(raw=f"<pre>{request}".encode(), status="502 Bad Gateway"),
    "redirect": lambda request: http(
        status="302 Found", headers=(f"Location: https://{_line(request).replace(' ', '-')}/",)
    ),
    "redirect's query": lambda request: http(
        status="302 Found", headers=(f"Location: https://h/?{_line(request).replace(' ', '-')}",)
    ),
    "garbage": lambda request: request.encode(),
    "broken JSON": lambda request: http(raw=json.dumps({"job_id": request}).encode()[:-2]),
    "value of another type": lambda request: http({"job_id": request, "status": request, "jobs": request}),
    "name of a field": lambda request: http({"jobs": [{request: 1}], "job_id": {request: 1}}),
    "status line": lambda request: f"HTTP/1.1 {_line(request)}\r\n\r\n".encode(),
    "header that is none": lambda request: f"HTTP/1.1 200 OK\r\n{_line(request)}\r\n\r\n".encode(),
    "date": lambda request: http({}, status="401 No", headers=(f"Date: {_line(request)}",)),
    "retry-after": lambda request: http({}, status="429 No", headers=(f"Retry-After: {_line(request)}",)),
    "encoding": lambda request: http({}, headers=(f"Content-Encoding: {_line(request)}",)),
    "cookie": lambda request: http({}, status="400 No", headers=(f"Set-Cookie: a={_line(request)}",)),
    "cut body": lambda request: http({"error_msg": request}, status="400 Bad Request")[:-5],
    "nothing": lambda _: b"",
}


def _password(endpoint: str) -> PasswordAuth:
    return PasswordAuth(
        endpoint, username="ada", password=f'{CANARY} "pass"', domain_name="d", project_id=PROJECT
    )


AUTHS: dict[str, Callable[[str], vizwatch.Auth]] = {
    "token": lambda _: TokenAuth(f"{CANARY}-token"),
    "password": _password,
    "key": lambda _: AkSkAuth(f"AKAKAK-{CANARY}", f"{CANARY}-sk"),
    "temporary key": lambda _: AkSkAuth(f"AKAKAK-{CANARY}", f"{CANARY}-sk", f"{CANARY}-security"),
}

CALLS: dict[str, Callable[[Client], Awaitable[Any]]] = {
    "list": lambda client: client.list_jobs().collect(),
    "get": lambda client: client.get_job(197),
    "create": lambda client: client.create_job("board", "/obs/a/"),
    "stop": lambda client: client.stop_job(197, wait=20),
    "delete": lambda client: client.delete_job(197),
    "watch": lambda client: anext(client.watch(197, timeout=20)),
}


def signatures(server: RawServer) -> set[str]:
    return {one for request in server.requests for one in re.findall(r"Signature=(\w+)", request.decode())}


def every_view(error: BaseException) -> str:
    """All ways in which an error of ours leaves the process."""
    twins = [pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)]
    return shown(error) + pickle.dumps(error).decode("latin-1") + "".join(map(repr, map(vars, twins)))


@asynccontextmanager
async def client_of(server: RawServer, auth: vizwatch.Auth) -> AsyncIterator[Client]:
    settings = vizwatch.Settings(attempts=2, backoff_base=0.01, backoff_max=0.01)
    async with Client(server.endpoint, PROJECT, auth=auth, settings=settings) as client:
        yield client


@pytest.mark.fault("A13", "X1", "no secret")
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", [*AUTHS, "refused password"])
async def test_no_error_shows_a_secret_wherever_a_server_repeats_it(
    kind: str, place: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    asyncio.get_running_loop().set_debug(True)
    seen: dict[str, str] = {}
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        async with Echo(place, of_token_calls=kind == "refused password") as server:
            auth = AUTHS[kind.removeprefix("refused ")](server.endpoint)
            async with client_of(server, auth) as client:
                for name, call in CALLS.items():
                    try:
                        value = await call(client)
                    except vizwatch.VizwatchError as error:
                        seen[name] = every_view(error)
                    else:
                        assert (name, value) == ("delete", None), "an empty answer is as good as success"
                seen["client"] = f"{client!r}{vars(client)!r}{vars(client._project)!r}"
                seen["auth"] = f"{auth!r}{auth}{vars(auth)!r}"
            sent = b"".join(server.requests).decode()
    seen["log"] = caplog.text + repr([vars(record) for record in caplog.records])
    seen["warnings"] = "".join(str(one.message) for one in warned)
    assert CANARY in sent, "it was there to be shown"
    for where, text in seen.items():
        for secret in (CANARY, *signatures(server)):
            assert secret not in text, where


@pytest.mark.fault("X1")
@pytest.mark.parametrize("kind", AUTHS)
def test_credentials_show_and_pickle_no_secret(kind: str) -> None:
    auth = AUTHS[kind]("https://iam.example.com")
    assert CANARY not in f"{auth}{auth!r}{vars(auth)!r}"
    with pytest.raises(TypeError):
        pickle.dumps(auth)


USER: dict[str, Any] = {"username": "ada", "domain_name": "d", "project_id": "p"}
CONSTRUCTED: dict[str, Callable[[], object]] = {
    "token with a newline": lambda: TokenAuth(f"{CANARY}\n"),
    "secret key with a newline": lambda: AkSkAuth("AK", f"{CANARY}\n"),
    "wrong access key": lambda: AkSkAuth("A K", CANARY),
    "wrong security token": lambda: AkSkAuth("AK", CANARY, f"{CANARY} "),
    "http to IAM": lambda: PasswordAuth("http://example.com", password=CANARY, **USER),
    "no project": lambda: PasswordAuth(
        "https://iam.example.com", password=CANARY, username="ada", domain_name="d"
    ),
    "long user": lambda: PasswordAuth(
        "https://iam.example.com", password=CANARY, **{**USER, "username": "a" * 256}
    ),
    "password with a surrogate": lambda: PasswordAuth(
        "https://iam.example.com", password=f"{CANARY}\udcff", **USER
    ),
    "password in IAM's address": lambda: PasswordAuth(f"https://u:{CANARY}@h.de", password="p", **USER),
    "password in the address": lambda: Client(f"https://u:{CANARY}@h.de", PROJECT, auth=CANARY),
    "token in the address's query": lambda: Client(f"https://h.de/?token={CANARY}", PROJECT, auth=CANARY),
    "token in the address's fragment": lambda: Client(f"https://h.de/#{CANARY}", PROJECT, auth=CANARY),
    "http": lambda: Client("http://example.com", PROJECT, auth=CANARY),
    "wrong project": lambda: Client("https://h.de", "../x", auth=CANARY),
    "wrong token": lambda: Client("https://h.de", PROJECT, auth=f"{CANARY}\n"),
    "password in the URL of a Redis": lambda: RedisCheckpoint(f"redis://u:{CANARY}#@h"),
    "half a password in the URL of a Redis": lambda: RedisCheckpoint(f"redis://u:p/{CANARY}@h"),
    "port in the URL of a Redis": lambda: RedisCheckpoint(f"redis://u:{CANARY}"),
    "broken URL of a Redis": lambda: RedisCheckpoint(f"redis://[{CANARY}"),
    "wrong window beside a URL of a Redis": lambda: RedisCheckpoint(f"redis://:{CANARY}@h", window=-1),
    "two URLs of a Redis": lambda: RedisCheckpoint(f"redis://:{CANARY}@h", url_env="X"),
    "from_env": lambda: Client.from_env(endpoint=f"https://u:{CANARY}@h.de"),
}


@pytest.mark.fault("X1", "no secret")
@pytest.mark.parametrize("case", CONSTRUCTED)
def test_no_constructor_that_fails_shows_what_it_was_given(case: str) -> None:
    with pytest.raises(vizwatch.ConfigError) as caught:
        CONSTRUCTED[case]()
    below = caught.value.__traceback__
    assert below is not None
    assert below.tb_next is not None
    caught.value.__traceback__ = below.tb_next  # the test's own lambda has it in its text
    assert CANARY not in every_view(caught.value)
