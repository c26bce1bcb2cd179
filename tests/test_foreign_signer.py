"""The vendor's own signer, the emulated cloud and this package's signatures agree, whatever is signed."""

from __future__ import annotations

import datetime as dt
import re
from typing import Any
from urllib.parse import quote

import aiohttp
import attrs
import pytest
import yarl
from huaweicloudsdkcore.auth.credentials import BasicCredentials
from huaweicloudsdkcore.sdk_request import SdkRequest
from huaweicloudsdkcore.signer.signer import Signer
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from looptime import new_event_loop

from vizwatch._rules import signing
from vizwatch.emulator import Emulator

pytestmark = pytest.mark.foreign

KEYS = {"access_key": "an-access-key", "secret_key": "a-secret-key"}
NOW = "20260131T235959Z"

# Half of what is invented is what signers get wrong.
AWKWARD = st.sampled_from(
    ["%2F", "%2f", "%", "%%", "%zz", "+", "~", "*", " ", "/", "ü", "日", "%C3%BC", "&", "="]
)
TEXT = st.lists(
    st.one_of(AWKWARD, st.text(st.characters(exclude_categories=["Cs"]), max_size=4)), max_size=6
).map("".join)
PATHS = TEXT.map(lambda text: "/" + re.sub(r"[?#]", "", text))
# Few keys, so that some come twice; the empty one is among them.
QUERIES = st.lists(st.tuples(st.one_of(st.sampled_from(["", "a", "b"]), TEXT), TEXT), max_size=5)
BODIES = st.one_of(st.just(b""), st.binary(max_size=40), TEXT.map(str.encode))
NAMES = st.from_regex(r"X-[A-Za-z][A-Za-z_-]{0,8}", fullmatch=True)
VALUES = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Zl", "Zp"]), max_size=12)
METHODS = st.sampled_from(["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "get", "Put"])
CONTENT_TYPES = st.sampled_from([None, "application/json", "application/json;charset=utf8", "text/plain"])


def signed_by_the_vendor(
    method: str,
    path: str,
    query: list[tuple[str, str]],
    headers: dict[str, str],
    body: bytes,
    *,
    access_key: str,
    secret_key: str,
) -> SdkRequest:
    request = SdkRequest(
        method=method,
        schema="http",
        host=headers["Host"],
        resource_path=path,
        query_params=list(query),
        header_params=dict(headers),
        body=body,
    )
    return Signer(BasicCredentials(access_key, secret_key)).sign(request)


# The vendor's signer and ours


@pytest.mark.fault("A11")
@given(
    method=METHODS,
    path=PATHS,
    query=QUERIES,
    extra=st.dictionaries(NAMES, VALUES, max_size=3),
    content_type=CONTENT_TYPES,
    port=st.sampled_from(["", ":8443"]),
    body=BODIES,
)
@example(
    method="GET",
    path="/v1/p/a b+~*%2F%2f%/ü",
    query=[("", ""), ("", "x"), ("ä", "+ ~*%2F"), ("a", "2"), ("a", "1"), ("a-", ""), ("a", "")],
    extra={"X-Odd": "  ü  ", "X_Unsigned": "1"},
    content_type="text/plain",
    port=":8443",
    body=b"",
)
def test_the_vendors_signer_and_ours_give_the_same_authorization(
    method: str,
    path: str,
    query: list[tuple[str, str]],
    extra: dict[str, str],
    content_type: str | None,
    port: str,
    body: bytes,
) -> None:
    # The vendor's reads headers in a dict, where names that differ in case are not one.
    headers = {name.lower(): value for name, value in extra.items()}
    headers |= {"Host": f"modelarts.example.com{port}", "X-Sdk-Date": NOW, "X-Project-Id": "p"}
    if content_type is not None:
        headers["Content-Type"] = content_type
    theirs = signed_by_the_vendor(method, path, query, headers, body, **KEYS).header_params
    # What the vendor's adds by itself; a caller of ours says so.
    if "X-Sdk-Content-Sha256" in theirs:
        headers["X-Sdk-Content-Sha256"] = "UNSIGNED-PAYLOAD"
    ours = signing.authorization(method, path, signing.canonical_query(query), headers, body, **KEYS)
    assert ours == theirs["Authorization"]


@pytest.mark.fault("A11")
@given(query=QUERIES)
def test_the_vendors_signer_sends_the_query_that_ours_signs(query: list[tuple[str, str]]) -> None:
    theirs = signed_by_the_vendor("GET", "/p", query, {"Host": "h"}, b"", **KEYS)
    assert theirs.uri.partition("?")[2] == signing.canonical_query(query)


# The vendor's signer and the emulated cloud


@attrs.define
class Signed:
    """A request as the vendor's signer leaves it; what is changed afterwards is not signed."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes

    async def send(self, cloud: Emulator, session: aiohttp.ClientSession) -> tuple[int, str, str]:
        url = cloud.endpoint + self.path + ("?" if self.query else "") + self.query
        async with session.request(
            self.method,
            yarl.URL(url, encoded=True),
            headers=self.headers,
            data=self.body,
            skip_auto_headers=["Content-Type", "User-Agent", "Accept", "Accept-Encoding"],
        ) as answer:
            body = await answer.json()
        return answer.status, body.get("error_code", ""), body.get("error_msg", "")


def sign(
    cloud: Emulator,
    method: str = "GET",
    tail: str = "",
    query: list[tuple[str, str]] | None = None,
    body: bytes = b"",
    *,
    offset: float = 0.0,
    **headers: str,
) -> Signed:
    """A request for the default project's jobs, signed `offset` seconds from now by the vendor's signer."""
    given = {
        "Host": cloud.endpoint.removeprefix("http://"),
        "X-Sdk-Date": stamp(offset),
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    path = f"/v1/{cloud.project_id}/visualization-jobs{tail}"
    keys = {"access_key": cloud.access_key, "secret_key": cloud.secret_key}
    request = signed_by_the_vendor(method, path, query or [], given, body, **keys)
    # As HTTP clients send a path: what is quoted stays so.
    sent = quote(re.sub(r"%(?![0-9A-Fa-f]{2})", "%25", path), safe="/%~*+")
    # The vendor's hands headers over as bytes shown in Latin-1, which go out as they are.
    values = {name: value.encode("latin-1").decode() for name, value in request.header_params.items()}
    return Signed(method, sent, request.uri.partition("?")[2], values, body)


def stamp(offset: float) -> str:
    return signing.timestamp(dt.datetime.now(dt.UTC) + dt.timedelta(seconds=offset))


REFUSED = (401, "APIGW.0301")

SEGMENTS = TEXT.map(lambda text: "/" + re.sub(r"[?#/]", "", text)).filter(lambda text: text.strip("/.") != "")
CALLS = st.tuples(
    st.sampled_from(["GET", "PUT", "DELETE"]),
    SEGMENTS,
    QUERIES,
    BODIES,
    CONTENT_TYPES,
    VALUES,
    st.floats(-870, 870),
)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(calls=st.lists(CALLS, min_size=1, max_size=4))
@example(
    calls=[
        ("PUT", "/a b+~*%2F%2f%ü", [("", ""), ("a", "2"), ("a", "1"), ("ü +", "")], b"", "text/plain", "ü", 0)
    ]
)
@example(
    calls=[("PUT", "/1", [], b"\x00", "text/plain", "", 870), ("PUT", "/1", [], b"\x00", None, "", -870)]
)
def test_the_emulated_cloud_accepts_whatever_the_vendors_signer_signs(calls: list[Any]) -> None:
    async def send() -> list[tuple[int, str, str]]:
        async with Emulator() as cloud, aiohttp.ClientSession() as session:
            return [
                await sign(
                    cloud,
                    method,
                    tail,
                    query,
                    body,
                    offset=offset,
                    X_Odd=value,
                    **({} if content_type is None else {"Content_Type": content_type}),
                ).send(cloud, session)
                for method, tail, query, body, content_type, value, offset in calls
            ]

    loop = new_event_loop()
    try:
        answers = loop.run_until_complete(send())
    finally:
        loop.close()
    # Accepted, and then refused for what it asks for: no job with this id, or no job's id at all.
    assert {answer[:2] for answer in answers} <= {(404, "ModelArts.0015"), (400, "ModelArts.0104")}


def changed_headers(name: str) -> Any:
    def change(request: Signed) -> None:
        request.headers[name] = f"{request.headers[name]}0"

    return change


def exempt_body(request: Signed) -> None:
    request.body = b'{"job_desc": "other"}'
    request.headers["X-Sdk-Content-Sha256"] = "UNSIGNED-PAYLOAD"


CHANGES: dict[str, Any] = {
    "method": lambda request: setattr(request, "method", "DELETE"),
    "path": lambda request: setattr(request, "path", request.path.replace("/7", "/8")),
    "query": lambda request: setattr(request, "query", "a=1&b=3"),
    "query's end": lambda request: setattr(request, "query", request.query + "&b=2"),
    "no query": lambda request: setattr(request, "query", ""),
    "body": lambda request: setattr(request, "body", b'{"job_desc": "other"}'),
    "no body": lambda request: setattr(request, "body", b""),
    "body, said to be unsigned": exempt_body,
    "signed headers": lambda request: request.headers.update(
        Authorization=request.headers["Authorization"].replace("host;", "")
    ),
    "signature": changed_headers("Authorization"),
    "access key": lambda request: request.headers.update(
        Authorization=request.headers["Authorization"].replace("Access=", "Access=x")
    ),
    "security token": lambda request: request.headers.update({"X-Security-Token": "surplus"}),
    "date by a second": lambda request: request.headers.update({"X-Sdk-Date": stamp(-9)}),
    "no date": lambda request: request.headers.pop("X-Sdk-Date"),
    **{name: changed_headers(name) for name in ("Host", "X-Project-Id", "X-Odd", "Content-Type")},
}


@pytest.mark.looptime
@pytest.mark.parametrize("change", CHANGES)
async def test_the_emulated_cloud_refuses_every_single_change(change: str, cloud: Emulator) -> None:
    request = sign(
        cloud,
        "PUT",
        "/7",
        [("b", "2"), ("a", "1")],
        b'{"job_desc": "new"}',
        X_Project_Id=cloud.project_id,
        X_Odd="odd",
        Content_Type="application/json",
    )
    cloud.add_jobs(8)
    async with aiohttp.ClientSession() as session:
        assert (await request.send(cloud, session))[0] == 200
        CHANGES[change](request)
        status, code, _ = await request.send(cloud, session)
    assert (status, code) == REFUSED


@pytest.mark.looptime
@pytest.mark.parametrize("tail", ["/7/stop", "/7/restart"])
async def test_an_operation_cannot_be_made_of_another_one(tail: str, cloud: Emulator) -> None:
    cloud.add_jobs(8, status=8)
    request = sign(cloud, "POST", tail)
    request.path = request.path.replace("stop", "restart") if "stop" in tail else request.path[:-7] + "stop"
    async with aiohttp.ClientSession() as session:
        assert (await request.send(cloud, session))[:2] == REFUSED


@pytest.mark.looptime
@pytest.mark.parametrize("offset", [-930, 930, -1e7, 1e7])
async def test_a_date_over_15_minutes_off_is_refused_with_the_gateways_text(
    offset: float, cloud: Emulator
) -> None:
    """The text as users of both clouds have reported it."""
    request = sign(cloud, offset=offset)
    async with aiohttp.ClientSession() as session:
        status, code, text = await request.send(cloud, session)
    assert (status, code) == REFUSED
    signed_at = request.headers["X-Sdk-Date"]
    assert re.fullmatch(
        "Incorrect IAM authentication information: calc aksk signature fail:signature expired, "
        rf"signature time:{signed_at},server time:\d{{8}}T\d{{6}}Z",
        text,
    )


@pytest.mark.looptime
async def test_a_refused_signature_is_told_what_the_gateway_saw(cloud: Emulator) -> None:
    """As the gateways do, with bars for line ends; a client must not show it."""
    request = sign(cloud, tail="/7", query=[("a", "1")])
    request.query = "a=2"
    async with aiohttp.ClientSession() as session:
        _, _, text = await request.send(cloud, session)
    host, date = request.headers["Host"], request.headers["X-Sdk-Date"]
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert text == (
        "Incorrect IAM authentication information: verify aksk signature fail, canonicalRequest:"
        f"GET|{request.path}/|a=2|host:{host}|x-sdk-date:{date}||host;x-sdk-date|{empty}"
    )


@pytest.mark.looptime
async def test_a_signature_is_for_the_project_that_its_header_names(cloud: Emulator) -> None:
    """Without one it is the default project's; with one it must be the URL's."""
    async with aiohttp.ClientSession() as session:

        async def ask(project_id: str, **headers: str) -> tuple[int, str]:
            path = f"/v1/{project_id}/visualization-jobs"
            given = {"Host": cloud.endpoint.removeprefix("http://"), "X-Sdk-Date": stamp(0), **headers}
            keys = {"access_key": cloud.access_key, "secret_key": cloud.secret_key}
            request = signed_by_the_vendor("GET", path, [], given, b"", **keys)
            status, code, _ = await Signed("GET", path, "", request.header_params, b"").send(cloud, session)
            return status, code

        assert await ask(cloud.project_id) == (200, "")
        assert await ask("other", **{"X-Project-Id": "other"}) == (200, "")
        assert await ask("other") == (404, "ModelArts.2786")
        assert await ask(cloud.project_id, **{"X-Project-Id": "other"}) == (404, "ModelArts.2786")
