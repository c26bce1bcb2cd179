"""The service's configuration: all that is wrong is said at once, with its line, and no secret is shown."""

from __future__ import annotations

import asyncio
import base64
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from canaries import shown
from hypothesis import given, settings
from hypothesis import strategies as st

import vizwatch
from vizwatch import JobStatus
from vizwatch._values.exchange import Outgoing
from vizwatch.fleet import payer_of
from vizwatch.service.files import FaultyConfigurationError, UnreadableTokenFileError, load
from vizwatch.service.options import Configuration, PythonCall, RedisStream, Stdout, Webhook
from vizwatch.service.tables import line_numbers

HOOK = "whsec_" + base64.b64encode(b"canary-secret-of-32-bytes-exactly").decode()
WHOLE = """\
[state]
path = "{tmp}/state"

[settings]
poll_interval = 30
requests_per_second = 0.5

[watch]
status = ["running", "check-failed", 12]
max_age = 60

[http]
listen = "[::1]:0"

[[targets]]
name = "research"
region = "eu-de"
project_id = "p1"
workspace_id = "w"
auth = {{ token_env = "TOKEN" }}

[[targets]]
endpoint = "https://modelarts.example.com"
project_id = "p2"
[targets.auth]
access_key_env = "AK"
secret_key_file = "{tmp}/sk"

[[targets]]
name = "production"
region = "eu-de"
project_id = "p3"
[targets.auth]
username = "me"
password_env = "PASSWORD"
domain_name = "account"

[[targets]]
name = "clouds"
region = "eu-de"
project_id = "p4"
auth = {{ cloud = "otc" }}

[[sinks]]
name = "out"
type = "stdout"

[[sinks]]
name = "hook"
type = "webhook"
url = "https://example.com/hook"
secret_env = "HOOK"
targets = "p2"
status = ["failed", "deleted"]
terminal_only = true
backlog = 5

[[sinks]]
name = "stream"
type = "redis"
url_env = "REDIS"
stream = "jobs"
max_length = 1000

[[sinks]]
name = "call"
type = "python"
call = "json:dumps"
timeout = 5
"""

Check = Callable[[str], Any]


@pytest.fixture
def check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Check:
    """Loads a configuration, with what it names around it."""
    for name, value in {
        "TOKEN": "canary-token",
        "AK": "canary-ak",
        "PASSWORD": "canary-password",
        "HOOK": HOOK,
        "REDIS": "rediss://user:canary@example.com/0",
        "REDIS_WITH_MORE": "redis://user:canary@example.com/0?socket_timeout=canary",
        "EMPTY": " ",
        "BLANKS": "canary token",
    }.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "sk").write_text("canary-sk\n")
    (tmp_path / "blank").write_text(" \n")
    file = tmp_path / "vizwatch.toml"

    def loaded(text: str) -> Configuration | list[str]:
        file.write_text(text.replace("{tmp}", str(tmp_path)).replace("{{", "{").replace("}}", "}"))
        try:
            with asyncio.Runner() as runner:
                return runner.run(load(file))
        except FaultyConfigurationError as error:
            assert "canary" not in shown(error)
            return [fault.removeprefix(str(file)) for fault in error.faults]

    return loaded


def test_a_whole_configuration_is_read_and_shows_no_secret(check: Check, tmp_path: Path) -> None:
    found = check(WHOLE)
    assert isinstance(found, Configuration), found
    assert "canary" not in repr(found)
    assert found.state == tmp_path / "state"
    assert not found.state.exists(), "nothing is written before the service runs"
    assert found.settings == vizwatch.Settings(poll_interval=30, requests_per_second=0.5)
    assert found.watch.status == frozenset({8, 21, 12})
    assert (found.watch.max_age, found.listen) == (60, ("::1", 0))
    assert [target.name for target in found.targets] == ["research", "p2", "production", "clouds"]
    assert found.targets[0].endpoint == "https://modelarts.eu-de.otc.t-systems.com"
    assert [type(target.auth) for target in found.targets] == [
        vizwatch.TokenAuth,
        vizwatch.AkSkAuth,
        vizwatch.PasswordAuth,
        vizwatch.CloudsAuth,
    ]
    out, hook, stream, call = found.sinks
    assert (out.destination, out.backlog) == (Stdout(), 10_000)
    assert isinstance(hook.destination, Webhook)
    assert hook.filter.statuses == frozenset({JobStatus.FAILED, None})
    assert (hook.filter.targets, hook.filter.terminal_only, hook.backlog) == (frozenset({"p2"}), True, 5)
    assert isinstance(stream.destination, RedisStream)
    assert (stream.destination.stream, stream.destination.max_length) == ("jobs", 1000)
    assert isinstance(call.destination, PythonCall)
    assert call.timeout == 5


_STATE = 'path = "{tmp}/state"'
WRONG = [
    (
        _STATE,
        f'{_STATE}\ncheckpoint = "redis://a"\ncheckpoint_env = "REDIS"',
        3,
        "state.checkpoint and checkpo",
    ),
    (
        _STATE,
        f'{_STATE}\ncheckpoint = "http://a"',
        3,
        "state.checkpoint must be redis://[user:password@]host",
    ),
    (_STATE, f'{_STATE}\ncheckpoint = "redis://a:canary@b"', 3, "state.checkpoint must have no user or"),
    (
        _STATE,
        f'{_STATE}\ncheckpoint_env = "TOKEN"',
        3,
        "state.checkpoint_env must be redis://[user:password@]h",
    ),
    ("poll_interval = 30", "poll_interval = 0", 5, "settings.poll_interval must be a number of seconds from"),
    ("poll_interval = 30", "poll_interval = 0.5", 5, "settings.poll_interval is wrong: Settings.poll_int"),
    (
        "poll_interval = 30",
        "poll_intervall = 3",
        5,
        "settings.poll_intervall is unknown: did you mean",
    ),
    ("poll_interval = 30", "on_retry = 3", 5, "settings.on_retry is unknown: known are poll_interval, "),
    ("[watch]", "[wacht]", 8, "wacht is unknown: did you mean watch?"),
    ('"running"', '"runing"', 9, "watch.status must be a status's name or number, such as running or 8, or "),
    ('["running", "check-failed", 12]', "[]", 9, "watch.status must be one value at least"),
    (
        "max_age = 60",
        "max_age = true",
        10,
        "watch.max_age must be a number of seconds from 1.34 to 86400",
    ),
    ("max_age = 60", "interval = 0.01", 10, "watch.interval must be a number of seconds from 1 to 86400"),
    ('"[::1]:0"', '"9464"', 13, "http.listen must be a host and a port, such as 127.0.0.1:9464, not '9464'"),
    ('"[::1]:0"', '"a:b"', 13, "http.listen must be a host and a port"),
    ('"[::1]:0"', '"a..b:1"', 13, "http.listen must be a host and a port"),
    ('"[::1]:0"', '"localhost:1?a"', 13, "http.listen must be a host and a port"),
    ('path = "{tmp}/state"', "", 1, "state.path is missing"),
    ('path = "{tmp}/state"', "path = 3", 2, "state.path must be a string of 1 to 1024 characters, not 3"),
    ('path = "{tmp}/state"', 'path = "{tmp}/sk/x"', 2, "state.path must be a folder that can be written: N"),
    ('path = "{tmp}/state"', 'path = "{tmp}/sk"', 2, "state.path must be a folder that can be written: /"),
    ('path = "{tmp}/state"', 'path = "a\\u0000b"', 2, "state.path must be a folder that can be written: it"),
    ('name = "research"', 'name = "p2"', 16, "targets[0].name is that of another one, too: 'p2'"),
    ('project_id = "p3"', 'project_id = "p4"', 32, "targets[2].project_id is that of another one, too"),
    ('region = "eu-de"\nproject_id = "p1"', 'region = "eu"\nproject_id = "p1"', 17, "targets[0].region must"),
    (
        'project_id = "p1"',
        'project_id = "a/b"',
        18,
        "targets[0].project_id must be 1 to 64 of the characters",
    ),
    ('workspace_id = "w"', 'workspace_id = "a b"', 19, "targets[0].workspace_id must be 1 to 64 of the cha"),
    (
        '"https://modelarts.ex',
        '"http://modelarts.ex',
        23,
        "targets[1].endpoint must be https, since http carr",
    ),
    ('workspace_id = "w"', 'endpoint = "https://a"', 15, "targets[0] must have one of endpoint and region"),
    ('auth = {{ token_env = "TOKEN" }}', "", 15, "targets[0].auth is missing"),
    ('token_env = "TOKEN"', 'token = "canary"', 20, "targets[0].auth.token must not stand in this file"),
    ('token_env = "TOKEN"', 'token_env = "NONE"', 20, "targets[0].auth.token_env names an environment var"),
    ('token_env = "TOKEN"', 'token_env = "EMPTY"', 20, "targets[0].auth.token_env names an environment va"),
    ('token_env = "TOKEN"', 'token_env = "a canary"', 20, "targets[0].auth.token_env must be the name of"),
    ('token_env = "TOKEN"', 'token_env = "BLANKS"', 20, "targets[0].auth.token_env must be 1 to 65536 print"),
    (
        'token_env = "TOKEN"',
        'token_file = "/dev/null"',
        20,
        "targets[0].auth.token_file names a file: it can",
    ),
    ('token_env = "TOKEN"', 'token_file = "{tmp}/blank"', 20, "targets[0].auth.token_file names a file that"),
    ('token_env = "TOKEN"', 'token_file = "{tmp}/no"', 20, "targets[0].auth.token_file names a file: it can"),
    (
        'token_env = "TOKEN"',
        'token_env = "TOKEN", cloud = "x"',
        20,
        "targets[0].auth must have exactly one",
    ),
    ('token_env = "TOKEN"', 'token_env = "TOKEN", user = "x"', 20, "targets[0].auth.user is unknown"),
    ('secret_key_file = "{tmp}/sk"', "", 25, "targets[1].auth.secret_key_env or secret_key_file must be"),
    ('domain_name = "account"', "", 33, "targets[2].auth.domain_name is missing"),
    ('type = "stdout"', 'type = "stdin"', 46, "sinks[0].type must be one of stdout, webhook, redis, python"),
    ('name = "out"', 'name = "hook"', 45, "sinks[0].name is that of another one, too: 'hook'"),
    (
        "https://example.com/hook",
        "http://example.com/hook",
        51,
        "sinks[1].url must be an address with a",
    ),
    (
        "https://example.com/hook",
        "https://a:canary@b/",
        51,
        "sinks[1].url must have no user",
    ),
    ("https://example.com/hook", "https://b/?key=canary", 51, "sinks[1].url must have no user"),
    ('url = "https://example.com/hook"\n', "", 48, "sinks[1].url or url_env must be given"),
    ('secret_env = "HOOK"', 'secret = "canary"', 52, "sinks[1].secret must not stand in this file"),
    ('secret_env = "HOOK"', 'secret_env = "TOKEN"', 52, "sinks[1].secret_env must name a secret such as"),
    ('targets = "p2"', 'targets = "p5"', 53, "sinks[1].targets must be the name of a target (clouds, p2, pr"),
    ("terminal_only = true", "terminal_only = 1", 55, "sinks[1].terminal_only must be true or false, not 1"),
    ("backlog = 5", "backlog = 0", 56, "sinks[1].backlog must be a whole number from 1 to 1000000, not 0"),
    ('"jobs"', "3", 62, "sinks[2].stream must be"),
    ('url_env = "REDIS"', 'url_env = "TOKEN"', 61, "sinks[2].url_env must be an address with a host, by re"),
    (
        'url_env = "REDIS"',
        'url_env = "REDIS_WITH_MORE"',
        61,
        "sinks[2].url_env must be an address with a host",
    ),
    ("json:dumps", "json:nothing", 68, "sinks[3].call cannot be imported: AttributeError: module 'json'"),
    ("json:dumps", "nothing_here:f", 68, "sinks[3].call cannot be imported: ModuleNotFoundError: No module"),
    ("json:dumps", "json:__name__", 68, "sinks[3].call must name a function"),
    (
        "json:dumps",
        "nobodys",
        68,
        "sinks[3].call must be package.module:function, or the name of an entry",
    ),
    (
        "timeout = 5",
        "timeout = inf",
        69,
        "sinks[3].timeout must be a number of seconds from 0.1 to 300",
    ),
]


@pytest.mark.parametrize(("right", "wrong", "line", "said"), WRONG, ids=[one[1][:30] for one in WRONG])
@pytest.mark.fault("X1")
def test_a_fault_is_said_with_its_line_and_what_is_allowed(
    right: str, wrong: str, line: int | None, said: str, check: Check
) -> None:
    assert right in WHOLE
    faults = check(WHOLE.replace(right, wrong, 1))
    place = "" if line is None else f":{line}"
    assert any(fault.startswith(f"{place}: {said}") for fault in faults), faults
    assert len(faults) == (2 if "is that of another" in said else 1), "only one thing is wrong, or its twin"


def test_all_faults_are_said_at_once_in_the_order_of_the_file(check: Check) -> None:
    text = WHOLE
    for right, wrong in (("= 30", "= 0"), ("TOKEN", "NONE"), ("stdout", "stdin"), ("json:", "nojson:")):
        text = text.replace(right, wrong, 1)
    faults = check(text)
    assert [fault.split(":")[1] for fault in faults] == ["5", "20", "46", "68"]


def test_no_fault_hides_another_one(check: Check) -> None:
    text = WHOLE
    for right, wrong in (
        ("{tmp}/state", "{tmp}/sk/x"),
        ("poll_interval = 30", "poll_interval = 0.5\nconnect_timeout = 40"),
        ("max_age = 60", "max_age = 1\ninterval = 0.01"),
        ("[::1]:0", "[::1]"),
        ('"p1"', '"p/../1"'),
        ('"w"', '"a b"'),
        ("TOKEN", "BLANKS"),
        ("https://modelarts.", "http://modelarts."),
        ('"AK"', '"BLANKS"'),
        ('file = "{tmp}/sk"', 'file = "{tmp}/none"'),
        ('domain_name = "account"', 'domain_name = ""\niam_endpoint = "http://iam.example.com"'),
    ):
        assert right in text
        text = text.replace(right, wrong, 1)
    assert [fault.split(" ", 2)[:2] for fault in check(text)] == [
        [":2:", "state.path"],
        [":5:", "settings.poll_interval"],
        [":6:", "settings.connect_timeout"],
        [":11:", "watch.max_age"],
        [":12:", "watch.interval"],
        [":15:", "http.listen"],
        [":20:", "targets[0].project_id"],
        [":21:", "targets[0].workspace_id"],
        [":22:", "targets[0].auth.token_env"],
        [":25:", "targets[1].endpoint"],
        [":28:", "targets[1].auth.access_key_env"],
        [":29:", "targets[1].auth.secret_key_file"],
        [":38:", "targets[2].auth.domain_name"],
        [":39:", "targets[2].auth.iam_endpoint"],
    ]


@pytest.mark.parametrize(
    ("right", "wrong", "said"),
    [
        (
            'name = "production"\nregion = "eu-de"',
            'region = "eu"',
            "targets[2].region must be a known region",
        ),
        (
            'domain_name = "account"',
            'domain_name = "a"\niam_endpoint = 3',
            "targets[2].auth.iam_endpoint must",
        ),
        ('"p3"', '""', "targets[2].project_id must be"),
        ('project_id = "p3"\n', "", "targets[2].project_id is missing"),
        ("poll_interval = 30", "attempt_timeout = 5\ncall_timeout = 9", "settings.attempt_timeout is wr"),
        ("poll_interval = 30", "poll_interval = 0.2\nallow_insecure = true", "settings.poll_interval is wr"),
    ],
)
def test_a_fault_is_no_cause_of_others(right: str, wrong: str, said: str, check: Check) -> None:
    assert right in WHOLE
    text = WHOLE.replace("https://modelarts.", "http://modelarts.") if "insecure" in wrong else WHOLE
    (fault,) = check(text.replace(right, wrong, 1))
    assert said in fault


@pytest.mark.parametrize(
    ("right", "line", "said"),
    [
        ("backlog = 5", 56, "sinks[1].backlog must be a whole number from 1 to 1000000, not "),
        ("timeout = 5", 69, "sinks[3].timeout must be a number of seconds from 0.1 to 300, not "),
        ('listen = "[::1]:0"', 13, "http.listen must be a host and a port, such as 127.0.0.1:9464, not "),
        ("poll_interval = 30", 5, "settings.poll_interval must be a number of seconds from 0.001 to 86400, "),
        ("max_age = 60", 10, "watch.max_age must be a number of seconds from 1.34 to 86400, not "),
        ('status = ["running", "check-failed", 12]', 9, "watch.status must be a status's name or number, "),
        ('name = "out"', 45, "sinks[0].name must be 1 to 64 of the characters"),
        ('type = "stdout"', 46, "sinks[0].type must be one of stdout, webhook, redis, python, not "),
    ],
)
@pytest.mark.fault("X1")
def test_a_number_that_python_refuses_to_write_is_a_fault_like_others(
    right: str, line: int, said: str, check: Check
) -> None:
    assert right in WHOLE
    key = right.partition(" ")[0]
    (fault,) = check(WHOLE.replace(right, f"{key} = 0x{'f' * 8000}", 1))
    assert fault.startswith(f":{line}: {said}")
    assert fault.endswith("not a number of 32000 bits")


def test_a_stdout_that_is_closed_is_a_fault_of_its_sink(
    check: Check, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    (fault,) = check(WHOLE)
    assert fault.startswith(":46: sinks[0].type is stdout, which is closed: start the service with")


def test_two_sinks_do_not_share_stdout(check: Check) -> None:
    """Nor is that hidden by what else is wrong with one of them."""
    second = '[[sinks]]\nname = "out-2"\ntype = "stdout"\nbacklog = 0\n'
    assert [fault[:40] for fault in check(WHOLE + second)] == [
        ":72: sinks[4].type is stdout a second ti",
        ":73: sinks[4].backlog must be a whole nu",
    ]


@pytest.mark.parametrize("kind", ["def", "async def"])
def test_a_generator_is_no_function_for_a_sink(
    kind: str, check: Check, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / f"yields_{len(kind)}.py").write_text(f"{kind} f(transition):\n    yield\n")
    monkeypatch.syspath_prepend(tmp_path)
    (fault,) = check(WHOLE.replace("json:dumps", f"yields_{len(kind)}:f"))
    assert fault.startswith(":68: sinks[3].call must name a function without yield")


def test_a_module_that_ends_the_process_is_a_fault_of_its_sink(
    check: Check, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ends.py").write_text("raise SystemExit(0)")
    monkeypatch.syspath_prepend(tmp_path)
    (fault,) = check(WHOLE.replace("json:dumps", "ends:f"))
    assert fault == ":68: sinks[3].call cannot be imported: SystemExit: 0"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"a = 1\nb == 2\n", ":2: it is no TOML: "),
        (b"a = \xff", ": it is not UTF-8, from byte 4 on"),
        (b"a = 1" + b" " * 2**20, ": it is larger than 1024 KiB"),
        (b"a = " + b"[" * 100_000, ": it is nested too deeply"),
        (b"a = " + b"9" * 5_000, ": it is no TOML: "),
        (None, ": it cannot be read: it does not exist, or is no file"),
    ],
)
@pytest.mark.fault("X10")
def test_what_is_no_configuration_at_all_is_one_fault(
    content: bytes | None, said: str, tmp_path: Path
) -> None:
    file = tmp_path / "c.toml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(FaultyConfigurationError) as caught, asyncio.Runner() as runner:
        runner.run(load(file))
    (fault,) = caught.value.faults
    assert fault.startswith(f"{file}{said}")


def test_without_an_extra_its_sink_says_what_to_install(
    check: Check, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    faults = check(WHOLE)
    assert [fault.partition(" needs ")[2] for fault in faults] == [
        "openstack: pip install 'vizwatch[openstack]'",
        "redis: pip install 'vizwatch[redis]'",
    ]


def test_the_checkpoint_may_be_in_a_redis_whose_password_does_not_show(check: Check) -> None:
    for line in ('checkpoint_env = "REDIS"', 'checkpoint = "rediss://example.com/0"'):
        found = check(WHOLE.replace(_STATE, f"{_STATE}\n{line}"))
        assert repr(found.checkpoint) == "RedisCheckpoint('example.com:6379/0')"
        assert "canary" not in repr(found)


def test_an_entry_point_names_a_function_too(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.metadata

    point = importlib.metadata.EntryPoint("mine", "json:dumps", "vizwatch.sinks")
    monkeypatch.setattr(
        "importlib.metadata.entry_points", lambda group: importlib.metadata.EntryPoints([point])
    )
    found = check(WHOLE.replace("json:dumps", "mine"))
    assert found.sinks[-1].destination == PythonCall("mine", __import__("json").dumps)


async def test_a_token_in_a_file_is_read_again_once_it_is_refused(check: Check, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("canary-one\n")
    found = await asyncio.to_thread(check, WHOLE.replace('token_env = "TOKEN"', 'token_file = "{tmp}/token"'))
    auth: Any = found.targets[0].auth
    refused = await auth.headers(Outgoing("GET", "https://example.com"))
    assert not await auth.renew(refused), "the file has no other one"
    for unlucky in ("", "not one token\n"):
        (tmp_path / "token").write_text(unlucky)
        with pytest.raises(UnreadableTokenFileError):  # somebody is about to write it
            await auth.renew(refused)
    (tmp_path / "token").write_text("canary-two\n")
    assert await auth.renew(refused)
    assert await auth.headers(Outgoing("GET", "https://example.com")) == {"X-Auth-Token": "canary-two"}
    assert "canary" not in repr(auth)
    assert b"canary" not in pickle.dumps(auth)
    sent: Any = pickle.loads(pickle.dumps(auth))
    assert await sent.headers(Outgoing("GET", "https://example.com")) == {"X-Auth-Token": "canary-two"}
    assert payer_of(sent) == payer_of(auth), "which share one budget"


async def test_relative_paths_are_those_of_the_directory_in_which_the_service_was_started(
    check: Check, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever directory a sink's function goes to."""
    (tmp_path / "token").write_text("canary-one")
    monkeypatch.chdir(tmp_path)
    text = WHOLE.replace('token_env = "TOKEN"', 'token_file = "token"').replace("{tmp}/state", "state")
    found = await asyncio.to_thread(check, text)
    monkeypatch.chdir("/")
    assert found.state == tmp_path / "state"
    headers = await found.targets[0].auth.headers(Outgoing("GET", "https://example.com"))
    assert headers == {"X-Auth-Token": "canary-one"}


def test_a_key_is_found_by_its_line_whatever_way_it_is_written() -> None:
    lines = line_numbers('a.b = 1\n# c = 2\n[x."y"]\n"z" = 3\n[[s]]\n[[s]]\nt = 1\n[s.u]\nv = 2\n[[s.w]]\n')
    assert lines == {
        ("a", "b"): 1,
        ("x", "y"): 3,
        ("x", "y", "z"): 4,
        ("s", 0): 5,
        ("s", 1): 6,
        ("s", 1, "t"): 7,
        ("s", 1, "u"): 8,
        ("s", 1, "u", "v"): 9,
        ("s", 1, "w", 0): 10,
    }


json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=40)
@given(
    st.dictionaries(
        st.sampled_from(["state", "settings", "watch", "http", "targets", "sinks", "x"]),
        json_like
        | st.lists(
            st.dictionaries(
                st.sampled_from(["name", "type", "auth", "url", "targets", "status", "region", "project_id"]),
                json_like | st.sampled_from(["webhook", "python", "redis", "stdout"]),
            ),
            max_size=2,
        ),
    )
)
def test_no_document_does_anything_but_have_faults(document: dict[str, Any]) -> None:
    from vizwatch.service.configuration import configured
    from vizwatch.service.files import Surroundings

    with asyncio.Runner() as runner:
        faults = runner.run(configured(document, {}, Surroundings()))
    assert isinstance(faults, tuple)
    assert faults
    assert all(vizwatch.printable(fault.text, 10_000) == fault.text for fault in faults)


def test_the_regions_addresses_are_public() -> None:
    assert vizwatch.region("eu-de").iam_endpoint == "https://iam.eu-de.otc.t-systems.com"
    assert sys.modules["vizwatch._values.regions"].region is vizwatch.region
