"""Which Redis a URL means, and that nothing shows what stands in it."""

from __future__ import annotations

import contextlib
import pickle
from typing import Any

import pytest
from canaries import shown
from hypothesis import given, settings
from hypothesis import strategies as st

from vizwatch import ConfigError, RedisCheckpoint
from vizwatch._rules.location import locate

CANARY = "canary-5f2e"


@pytest.mark.parametrize(
    ("url", "shown_as"),
    [
        ("redis://h", "h:6379/0"),
        ("redis://h:1/7", "h:1/7"),
        ("rediss://ada:pass@redis.example.com/", "redis.example.com:6379/0"),
        ("redis://:p%40ss@[::1]:6380/2", "[::1]:6380/2"),
        ("redis://h?db=3", "h:6379/3"),
        ("unix:///run/my%20redis.sock?db=4", "/run/my redis.sock, database 4"),
        ("unix://:pass@/run/redis.sock", "/run/redis.sock, database 0"),
        ("rediss://h?ssl_ca_certs=/etc/ca.pem", "h:6379/0"),
    ],
)
def test_a_checkpoint_shows_where_it_is_and_nothing_else_of_its_url(url: str, shown_as: str) -> None:
    assert repr(RedisCheckpoint(url)) == f"RedisCheckpoint({shown_as!r})"


def test_user_and_password_are_percent_decoded() -> None:
    found = locate("redis://a%40b:%2F%3A@h", "url")
    assert (found.username, found.password) == ("a@b", "/:")


WRONG = [
    *(
        "",
        "h:6379",
        "http://h",
        "redis://",
        "redis:///0",
        "redis://h/x",
        "redis://h/-1",
        "redis://h:x",
        "redis://h:0x",
    ),
    *(
        "redis://h:70000",
        "redis://h?db=x",
        "redis://h?ssl_cert_reqs=none",
        "redis://h?ssl_ca_certs=/x",
        "redis://h#1",
    ),
    *(
        "rediss://h?ssl_cert_reqs=none",
        "redis://[::1",
        "redis://a b",
        "redis://h?password",
        "unix://run/redis.sock",
    ),
    *(
        "unix://",
        "unix:///",
        "unix:///a%00b",
        "redis://u:pa/ss@h",
        "redis://u:pa#ss@h",
        "redis://u:pa?ss@h",
        "redis://h\n",
    ),
    *("redis://" + "h" * 5_000, "redis://u:1/2@h"),
]


@pytest.mark.parametrize("url", [*WRONG, 1, b"redis://h"])
def test_what_is_no_url_of_a_redis_is_refused_at_once(url: Any) -> None:
    with pytest.raises(ConfigError, match=r"^url must be redis://.* it is not shown"):
        RedisCheckpoint(url)


@settings(max_examples=30)
@given(st.text("redis:/@?#[]%.&=0dbuap", max_size=40).map("redis://".__add__) | st.text(max_size=20))
def test_any_text_is_a_url_or_refused(url: str) -> None:
    with contextlib.suppress(ConfigError):
        assert isinstance(repr(RedisCheckpoint(url)), str)


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"url": "redis://h", "url_env": "X"},
        {"url_env": ""},
        {"url": "redis://h", "window": -1},
        {"url": "redis://h", "lease": 0},
        {"url": "redis://h", "prefix": "{a}"},
        {"url": "redis://h", "prefix": ""},
    ],
)
def test_wrong_arguments_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        RedisCheckpoint(**arguments)


def test_a_checkpoint_is_pickled_unless_it_has_a_password() -> None:
    twin = pickle.loads(pickle.dumps(RedisCheckpoint("redis://h/3", prefix="x")))
    assert (repr(twin), twin.prefix) == ("RedisCheckpoint('h:6379/3')", "x")
    for url in (f"redis://:{CANARY}@h", f"redis://{CANARY}@h"):
        with pytest.raises(TypeError, match="url_env") as told:
            pickle.dumps(RedisCheckpoint(url))
        assert CANARY not in shown(told.value)
