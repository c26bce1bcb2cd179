"""The vendor's own signer signs alike."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vizwatch._rules import signing

pytestmark = pytest.mark.foreign

texts = st.text(st.sampled_from("aZ09 +~*%/-_.ü日&=?:;,'\"()!$@[]{}|\\^`<>"), max_size=12)
KINDS = ["application/json", "text/plain"]


@given(
    st.sampled_from(["get", "PUT", "POST", "DELETE"]),
    texts,
    st.lists(st.tuples(texts, texts), max_size=4),
    texts,
    st.sampled_from(KINDS),
)
def test_the_vendors_signer_gives_the_same_signature(
    method: str, path: str, query: list[tuple[str, str]], body: str, kind: str
) -> None:
    from huaweicloudsdkcore.auth.credentials import BasicCredentials
    from huaweicloudsdkcore.sdk_request import SdkRequest
    from huaweicloudsdkcore.signer.signer import Signer

    headers = {
        "X-Sdk-Date": "20260131T235959Z",
        "Host": "example.com:8443",
        "X-Project-Id": "p1",
        "X_dropped": "1",
        "Content-Type": kind,
        "X-Odd": " a  b ",
    }
    theirs: Any = SdkRequest(
        method=method,
        schema="https",
        host="example.com:8443",
        resource_path=f"/{path}",
        query_params=list(query),
        header_params=dict(headers),
        body=body.encode() or None,
    )
    Signer(BasicCredentials("access", "secret", "p1")).sign(theirs)
    if kind != "application/json":
        headers["X-Sdk-Content-Sha256"] = "UNSIGNED-PAYLOAD"
    ours = signing.authorization(
        method,
        f"/{path}",
        signing.canonical_query(query),
        headers,
        body.encode(),
        access_key="access",
        secret_key="secret",
    )
    assert ours == theirs.header_params["Authorization"]
