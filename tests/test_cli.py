"""The command line: each command on an emulated cloud, its exit codes, and how it ends."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import stat
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

import attrs
import pytest

import vizwatch
from vizwatch.cli import main
from vizwatch.cli._errors import report

ROOT = Path(__file__).parent.parent
COMMAND = [sys.executable, "-W", "error", "-m", "vizwatch"]


@attrs.frozen
class Cloud:
    """An emulated cloud in a process of its own, told what to do over HTTP."""

    endpoint: str
    project_id: str
    token: str

    def _ask(self, path: str, body: dict[str, Any] | None) -> dict[str, Any]:
        data = None if body is None else json.dumps(body).encode()
        with urllib.request.urlopen(f"{self.endpoint}/_emulator/{path}", data=data, timeout=10) as answer:
            given: dict[str, Any] = json.load(answer)
        return given

    def add_job(self, **job: Any) -> int:
        job_id: int = self._ask("jobs", job)["job_ids"][0]
        return job_id

    def set_status(self, job_id: int, status: int | None) -> None:
        self._ask(f"jobs/{job_id}/status", {"status": status})

    def advance(self, seconds: float) -> None:
        self._ask("clock/advance", {"seconds": seconds})

    def fault(self, **fault: Any) -> None:
        self._ask("faults", fault)

    def requests(self) -> list[dict[str, Any]]:
        requests: list[dict[str, Any]] = self._ask("requests", None)["requests"]
        return requests


def child_environment() -> dict[str, str]:
    """With the usual buffering, so that what is not flushed is missed."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return {**kept, "PYTHONPATH": str(ROOT)}


@contextlib.contextmanager
def child(
    *argv: str, stdout: int | IO[str] = subprocess.PIPE, through: Sequence[str] = ()
) -> Iterator[subprocess.Popen[str]]:
    """A command in a process of its own, where any warning is an error; never outlives its test."""
    with subprocess.Popen(
        [*through, *COMMAND, *argv], stdout=stdout, stderr=subprocess.PIPE, text=True, env=child_environment()
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def line_of(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdout is not None
    line: dict[str, Any] = json.loads(process.stdout.readline())
    return line


@pytest.fixture(scope="module")
def served() -> Iterator[Cloud]:
    with child("emulator") as process:
        yield Cloud(**line_of(process))
        process.terminate()
        assert process.communicate(timeout=10) == ("", "")
        assert process.returncode == 0


@pytest.fixture(autouse=True)
def _environment(served: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in attrs.asdict(served).items():
        monkeypatch.setenv(f"VIZWATCH_{name.upper()}", value)


@attrs.frozen
class Done:
    code: int
    out: str
    err: str

    @property
    def objects(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]


@pytest.fixture
def vizwatch_command(capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs a command in this process."""

    def run(*argv: str | int) -> Done:
        capsys.readouterr()
        # In a thread: pytest-asyncio keeps a loop for this one, which asyncio.Runner would take away.
        with ThreadPoolExecutor(1) as thread:
            code = thread.submit(main, [str(one) for one in argv]).result()
        out, err = capsys.readouterr()
        return Done(code, out, err)

    return run


# What each command does


def test_list_prints_a_row_for_each_job(served: Cloud, vizwatch_command: Any) -> None:
    first, second = (served.add_job(status=8, job_name=f"row-{number}") for number in (1, 2))
    done = vizwatch_command("list", "--search-content", "row-")
    header, *rows = done.out.splitlines()
    assert (done.code, done.err) == (0, "")
    assert header.split()[:3] == ["ID", "NAME", "STATUS"]
    assert [row.split()[:3] for row in rows] == [
        [str(first), "row-1", "RUNNING"],
        [str(second), "row-2", "RUNNING"],
    ]


def test_list_as_json_has_every_field_of_a_job_and_the_name_of_its_status(
    served: Cloud, vizwatch_command: Any
) -> None:
    job_id = served.add_job(status=8, job_name="as-json")
    (job,) = vizwatch_command("list", "--search-content", "as-json", "--json").objects
    assert set(job) == {field.name for field in attrs.fields(vizwatch.Job)} | {"status_name", "created_at"}
    assert (job["job_id"], job["status"], job["status_name"]) == (job_id, 8, "RUNNING")
    assert job["created_at"].endswith("+00:00")


def test_list_passes_every_filter_on(served: Cloud, vizwatch_command: Any) -> None:
    done = vizwatch_command(
        *("list", "--status", "check-failed", "--search-content", "x", "--sort-by", "job_name"),
        *("--order", "desc", "--limit", "7", "--workspace-id", "ws"),
    )
    assert done.code == 0
    assert served.requests()[-1]["query"] == {
        "status": "21",
        "search_content": "x",
        "sortBy": "job_name",
        "order": "desc",
        "per_page": "7",
        "page": "1",
        "workspace_id": "ws",
    }


def test_a_jobs_life_from_creation_to_deletion_by_commands(served: Cloud, vizwatch_command: Any) -> None:
    (job,) = vizwatch_command("create", "life", "/obs/a/", "--auto-stop-hours", "2", "--json").objects
    job_id = job["job_id"]
    assert job["status_name"] == "INIT"
    served.advance(10)
    (job,) = vizwatch_command("wait", job_id, "--until", "running,12", "--timeout", "5", "--json").objects
    assert (job["status"], job["status_name"]) == (8, "RUNNING")

    (answer,) = vizwatch_command("stop", job_id, "--json").objects
    assert answer == {"operation": "stop", "job_id": job_id}
    served.advance(10)
    done = vizwatch_command("wait", job_id, "--timeout", "5")
    assert done.code == 0
    assert "KILLED (12)" in done.out

    assert vizwatch_command("restart", job_id).out == f"restart: job {job_id}, accepted\n"
    (job,) = vizwatch_command("show", job_id, "--json").objects
    assert job["status_name"] != "KILLED"
    assert vizwatch_command("update", job_id, "new words").code == 0
    shown = vizwatch_command("show", job_id).out.splitlines()
    rows = dict(line.split(maxsplit=1) for line in shown)
    assert rows["job_desc"].strip() == "new words"
    assert rows["schedule"].strip() == "stop after 2 HOURS"

    assert vizwatch_command("delete", job_id).code == 0
    served.advance(10)
    assert vizwatch_command("show", job_id).code == 1


@pytest.mark.parametrize(("verb", "status"), [("stop", 12), ("restart", 8), ("delete", 8)])
def test_a_write_may_wait_and_then_shows_the_job(
    served: Cloud, vizwatch_command: Any, verb: str, status: int
) -> None:
    job_id = str(served.add_job(status=status))
    accepted = {"text": '{"is_success": true}', "match": {"path": f"*/{job_id}*", "method": "POST"}}
    if verb == "delete":
        accepted["match"] = {"path": f"*/{job_id}", "method": "DELETE"}
        served.fault(
            kind="status", status=404, code="ModelArts.0015", match={"method": "GET"}, after=1, count=3
        )
    served.fault(kind="body", count=1, **accepted)
    (job,) = vizwatch_command(verb, job_id, "--wait", "30", "--json").objects
    assert (job["job_id"], job["status"]) == (int(job_id), status)
    assert vizwatch_command(verb, job_id, "--wait", "0").code == 2


def test_watch_prints_each_change_as_one_json_object_at_once(served: Cloud) -> None:
    job_id = served.add_job(status=8, job_name="watched")
    with child("watch", str(job_id), "--interval", "1", "--json") as process:
        first = line_of(process)
        served.set_status(job_id, 12)
        second = line_of(process)
        assert process.communicate(timeout=10) == ("", "")
    assert process.returncode == 0
    names = {field.name for field in attrs.fields(vizwatch.Transition)}
    assert set(first) == names | {"previous_name", "current_name"}
    assert (first["previous"], first["previous_name"], first["current_name"]) == (None, None, "RUNNING")
    assert (second["previous"], second["current"], second["current_name"]) == (8, 12, "KILLED")
    assert second["job"]["status_name"] == "KILLED"
    assert second["not_before"] <= first["not_after"] < second["not_after"]


def test_watch_follows_several_jobs_and_the_lowest_code_but_0_counts(
    served: Cloud, vizwatch_command: Any
) -> None:
    stopped, failed = served.add_job(status=12), served.add_job(status=11)
    assert vizwatch_command("watch", stopped, stopped).out.count("KILLED") == 1
    done = vizwatch_command("watch", stopped, failed)
    assert (done.code, done.err) == (3, "")
    assert len(done.out.splitlines()) == 2
    missing = 10**9
    done = vizwatch_command("watch", missing, stopped, failed)
    assert done.code == 1
    assert done.err.startswith(f"vizwatch: job {missing}: get job: HTTP 404")
    assert len(done.out.splitlines()) == 2


@pytest.mark.fault("C7", "D1")
def test_watch_all_takes_up_where_the_last_run_left_off_however_it_ended(
    served: Cloud, tmp_path: Path
) -> None:
    workspace, file = "checkpointed", str(tmp_path / "jobs.sqlite")
    job_id = served.add_job(status=8, workspace_id=workspace)
    command = (
        "watch",
        "--all",
        "--workspace-id",
        workspace,
        "--interval",
        "1",
        "--checkpoint",
        file,
        "--json",
    )

    def told(process: subprocess.Popen[str]) -> tuple[int, int | None, int | None]:
        line = line_of(process)
        return line["job_id"], line["previous"], line["current"]

    with child(*command) as process:
        assert told(process) == (job_id, None, 8)
        served.set_status(job_id, 9)
        assert told(process) == (job_id, 8, 9)
        process.terminate()
        assert process.communicate(timeout=5) == ("", "")
        assert process.returncode == 128 + signal.SIGTERM
    served.set_status(job_id, 12)
    with child(*command) as process:
        assert told(process) == (job_id, 9, 12)
        process.kill()
    served.set_status(job_id, 1)
    with child(*command) as process:
        first = told(process)
        assert first in {(job_id, 9, 12), (job_id, 12, 1)}, "again, if the kill came before it was delivered"
        assert first == (job_id, 12, 1) or told(process) == (job_id, 12, 1)


def test_nothing_is_watched_for_a_stdout_that_is_closed(
    served: Cloud, vizwatch_command: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What goes nowhere would count as delivered."""
    job_id = served.add_job(status=11)
    monkeypatch.setattr(sys, "stdout", None)
    for command in (["--all"], [job_id], ["--all", "--json"]):
        done = vizwatch_command("watch", *command, "--checkpoint", str(tmp_path / "jobs.sqlite"))
        assert (done.code, done.err[:42]) == (2, "vizwatch: stdout is closed, and nothing ca")
    assert not (tmp_path / "jobs.sqlite").exists()


def test_a_failure_that_was_told_before_has_its_exit_code_again(
    served: Cloud, vizwatch_command: Any, tmp_path: Path
) -> None:
    command = ("watch", served.add_job(status=11), "--checkpoint", str(tmp_path / "job.sqlite"))
    codes = [
        (done.code, len(done.out.splitlines())) for done in (vizwatch_command(*command) for _ in range(2))
    ]
    assert codes == [(3, 1), (3, 0)]


def test_watch_all_ends_at_its_deadline_and_takes_no_ids(
    served: Cloud, vizwatch_command: Any, tmp_path: Path
) -> None:
    served.add_job(status=8, workspace_id="late")
    done = vizwatch_command("watch", "--all", "--workspace-id", "late", "--timeout", "0.3", "--json")
    assert (done.code, done.err) == (4, "vizwatch: jobs were watched for 0.3 s\n")
    assert [line["current_name"] for line in done.objects] == ["RUNNING"]
    for wrong in (["197", "--all"], [], ["--all", "--timeout", "0"]):
        assert vizwatch_command("watch", *wrong).code == 2
    file = tmp_path / "no.sqlite"
    file.write_bytes(b"what is no checkpoint")
    done = vizwatch_command("watch", "--all", "--checkpoint", str(file))
    assert done.code == 2
    assert "damaged" in done.err


def test_a_passed_deadline_has_a_code_of_its_own(served: Cloud, vizwatch_command: Any) -> None:
    job_id = served.add_job(status=8)
    late = f"vizwatch: job {job_id} did not end within 0.2 s; last seen RUNNING\n"
    for command in ("watch", "wait"):
        done = vizwatch_command(command, job_id, "--timeout", "0.2")
        assert (done.code, done.err) == (4, late)


def test_wait_tells_a_job_that_failed_from_one_that_was_to_fail(served: Cloud, vizwatch_command: Any) -> None:
    job_id = served.add_job(status=11)
    assert vizwatch_command("wait", job_id).code == 3
    assert vizwatch_command("wait", job_id, "--until", "failed,lost").code == 0
    done = vizwatch_command("wait", job_id, "--until", "8")
    assert (done.code, done.out, done.err) == (3, "", f"vizwatch: job {job_id} ended as FAILED\n")


# What goes wrong


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ("bogus", 'Unknown command "bogus"'),
        ("bo\x1b[2Jgus", r"bo\x1b[2Jgus"),
        ("bo\ngus", 'Unknown command "bo gus"'),
        ("list --bogus 1", "Unknown option"),
        ("list --limit many", "--limit"),
        ("list --limit -1", "limit must be"),
        (
            "list --status done",
            "--status must be a status's name or number, such as running or 8, not 'done'",
        ),
        ("list --status 8,9,x", "--status must be a status's name or number"),
        ("list --order up", "order must be one of asc, desc"),
        ("list --endpoint http://example.com", "endpoint must be https"),
        ("list --project-id a/b", "project_id must be"),
        ("show", "--job-id"),
        ("show -1", ""),
        ("show ../1", "job_id must be"),
        ("watch", "watch needs the id of one job at least"),
        ("watch 1 x", "job_id must be"),
        ("watch 1 --interval nan", "interval must be"),
        ("watch 1 --interval 5s", "--interval"),
        ("watch 1 --timeout 0", "timeout must be"),
        ("wait 1 --until ,", "--until must be"),
        ("create no.dots /obs/a/", "job_name must be"),
        ("create a /obs/a/ --job-type jupyter", "job_type must be"),
        ("emulator --port 99999", "port must be"),
        ("emulator --speed 0", "speed must be"),
    ],
)
def test_a_wrong_argument_gives_one_line_and_code_2_before_any_request(
    argv: str, said: str, served: Cloud, vizwatch_command: Any
) -> None:
    before = len(served.requests())
    done = vizwatch_command(*argv.split(" "))
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("vizwatch: ")
    assert said in done.err
    assert done.err.count("\n") == 1
    assert len(served.requests()) == before


def test_a_missing_variable_is_named(vizwatch_command: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VIZWATCH_TOKEN")
    done = vizwatch_command("list")
    assert (done.code, done.out) == (2, "")
    assert "VIZWATCH_TOKEN is not set" in done.err


def test_options_win_over_the_environment(
    served: Cloud, vizwatch_command: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIZWATCH_ENDPOINT", "https://elsewhere.example.com")
    done = vizwatch_command("list", "--endpoint", served.endpoint, "--project-id", "another")
    assert (done.code, done.err) == (0, "")
    assert served.requests()[-1]["path"] == "/v1/another/visualization-jobs"


@pytest.mark.parametrize("option", ["--token canary-secret", "--token=canary-secret"])
def test_no_option_takes_a_secret_nor_is_one_repeated(option: str, vizwatch_command: Any) -> None:
    done = vizwatch_command("list", *option.split(" "))
    assert done.code == 2
    assert "canary" not in done.err


def test_a_refusal_gives_one_line_without_the_token_and_code_1(
    vizwatch_command: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIZWATCH_TOKEN", "canary-secret")
    done = vizwatch_command("list")
    assert (done.code, done.out, done.err.count("\n")) == (1, "", 1)
    assert "HTTP 401" in done.err
    assert "canary" not in done.err


@pytest.mark.fault("X8")
def test_a_refusals_text_cannot_control_the_terminal(served: Cloud, vizwatch_command: Any) -> None:
    text = "no\x1b[2J\r\nway"
    served.fault(kind="status", status=400, code="ModelArts.0102", message=text, count=1)
    done = vizwatch_command("list")
    assert done.code == 1
    assert done.err.count("\n") == 1
    assert done.err.rstrip("\n").isprintable()


def test_retries_are_not_talked_about(served: Cloud) -> None:
    served.fault(kind="status", status=503, count=1)
    with child("list", "--json", "--limit", "1") as process:
        assert process.communicate(timeout=10)[1] == ""
    assert process.returncode == 0
    assert [request["status"] for request in served.requests()[-2:]] == [503, 200]


@pytest.mark.parametrize("extra", ["cyclopts", "rich"])
def test_without_its_extra_the_command_line_says_what_to_install(extra: str) -> None:
    script = (
        f"import sys; sys.modules[{extra!r}] = None; import vizwatch.cli; sys.exit(vizwatch.cli.main([]))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        capture_output=True,
        text=True,
        env=child_environment(),
        timeout=10,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert 'install "vizwatch[cli]"' in done.stderr


def test_a_module_missing_otherwise_is_not_taken_for_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("vizwatch.cli._")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "vizwatch.cli._output", None)
    with pytest.raises(ModuleNotFoundError):
        main(["list"])


def test_a_mistake_of_our_own_is_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError):
        report(ExceptionGroup("from a task group", [ZeroDivisionError()]))


# How it ends


def test_help_names_every_exit_code(vizwatch_command: Any) -> None:
    done = vizwatch_command("--help")
    assert (done.code, done.err) == (0, "")
    for code in ("0", "1", "2", "3", "4", "130"):
        assert f"\n  {code} " in done.out


def test_the_process_s_arguments_are_taken_by_default(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["vizwatch", "--version"])
    assert main() == 0
    assert capsys.readouterr().out == f"{vizwatch.__version__}\n"


def test_ctrl_c_before_the_command_has_begun_ends_it_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: list[str]) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr("vizwatch.cli._app.run", interrupted)
    assert main([]) == 130


@pytest.mark.fault("C7")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_watch_without_a_word(number: int, code: int, served: Cloud) -> None:
    jobs = [str(served.add_job(status=8)) for _ in range(2)]
    with child("watch", *jobs, "--json") as process:
        line_of(process)
        line_of(process)
        process.send_signal(number)
        assert process.communicate(timeout=5) == ("", "")
    assert process.returncode == code


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_the_emulators_proper_end_even_if_a_shell_ignores_it(number: int) -> None:
    ignoring = ("sh", "-c", 'trap "" INT TERM; exec "$@"', "sh")
    with child("emulator", "--jobs", "2", through=ignoring) as process:
        assert set(line_of(process)) == {"endpoint", "project_id", "token"}
        process.send_signal(number)
        assert process.communicate(timeout=5) == ("", "")
    assert process.returncode == 0


@pytest.mark.parametrize("argv", ["list", "list --json", "show {}", "watch {} {} --json", "--help"])
def test_a_reader_that_has_gone_ends_the_command_quietly(argv: str, served: Cloud) -> None:
    job_id = str(served.add_job(status=12))
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as pipe, child(*argv.format(job_id, job_id).split(), stdout=pipe) as process:
        assert process.communicate(timeout=10)[1] == ""
    assert process.returncode == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_output_that_cannot_be_written_gives_one_line_and_code_1(served: Cloud) -> None:
    served.add_job(status=12)
    with Path("/dev/full").open("w") as full, child("list", "--json", stdout=full) as process:
        assert process.communicate(timeout=10)[1] == "vizwatch: [Errno 28] No space left on device\n"
    assert process.returncode == 1


def test_doctor_writes_a_recording_for_its_owner_alone(
    served: Cloud, vizwatch_command: Any, tmp_path: Path
) -> None:
    served.add_job(status=8)
    file = tmp_path / "recording.json"
    done = vizwatch_command("doctor", "--record", str(file), "--json")
    assert done.code == 0
    assert [one["check"] for one in done.objects][-2:] == ["listing", "recording"]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert json.loads(file.read_text())["vizwatch_recording"] == 1
    again = vizwatch_command("doctor", "--record", str(file))
    assert again.code == 2
    assert "--record must name a new file" in again.err


def test_doctor_says_what_is_wrong_with_its_exit_code(served: Cloud, vizwatch_command: Any) -> None:
    done = vizwatch_command("doctor", "--endpoint", "http://example.com")
    assert done.code == 2
    assert done.out.startswith("WRONG  configuration: ")
    served.fault(kind="status", status=403, code="ModelArts.0108", count=1)
    done = vizwatch_command("doctor")
    assert done.code == 1
    lines = done.out.splitlines()
    assert [line.split()[0] for line in lines] == ["ok"] * (len(lines) - 1) + ["WRONG"]


def test_an_emulator_starts_from_a_recording(served: Cloud, vizwatch_command: Any, tmp_path: Path) -> None:
    job_id = served.add_job(status=8, job_name="mine")
    file = tmp_path / "recording.json"
    assert vizwatch_command("doctor", "--record", str(file)).code == 0
    with child("emulator", "--recording", str(file)) as process:
        twin = Cloud(**line_of(process))
        done = vizwatch_command("show", str(job_id), "--endpoint", twin.endpoint, "--json")
        assert done.code == 1, "the token is another one"
        process.terminate()
    with child("emulator", "--recording", str(tmp_path / "none.json")) as process:
        assert process.communicate(timeout=10)[1] == (
            "vizwatch: recording cannot be read: No such file or directory\n"
        )
        assert process.returncode == 2
