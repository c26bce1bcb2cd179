"""What the README shows works as it stands there."""

from __future__ import annotations

import configparser
import re
from pathlib import Path
from typing import Any

import pytest

import vizwatch
from vizwatch.cli._errors import ExitCode
from vizwatch.cli._run import run_service
from vizwatch.emulator import Emulator

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"(<!-- skip: .*? -->\n)?```python\n(.*?)```", README, re.DOTALL)
PROGRAMS = [code for skipped, code in EXAMPLES if not skipped]


def test_the_quick_start_has_exactly_two_commands_of_one_line() -> None:
    (block,) = re.findall(r"## Quick start\n.*?```sh\n(.*?)```", README, re.DOTALL)
    assert len(block.splitlines()) == 2
    assert all(line.startswith("python3 -m venv .venv-") for line in block.splitlines())


def test_the_readme_names_only_rooms_that_exist() -> None:
    package = Path(vizwatch.__file__).parent
    table = README.split("## How the house is built")[1].split("## License")[0]
    rooms = {path.stem for path in package.rglob("*.py")} | {path.name for path in package.iterdir()}
    named = " ".join(re.findall(r"^\| \d.*?\|(.*?)\|", table, re.MULTILINE))
    assert named
    for name in re.findall(r"`(?:_\w+/)?(\w+)`", named):
        assert name in rooms, name


@pytest.mark.looptime
@pytest.mark.parametrize("number", range(len(PROGRAMS)))
async def test_an_example_runs(
    number: int, cloud: Emulator, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each against an emulated cloud, in this test's own event loop and virtual time."""
    cloud.add_jobs(3, plan=[[0, 8], [600, 12]])
    for name in ("endpoint", "project_id", "token"):
        monkeypatch.setenv(f"VIZWATCH_{name.upper()}", getattr(cloud, name))
    monkeypatch.setenv("PROJECTS", f"{cloud.project_id},another")
    main, ran = PROGRAMS[number].rsplit("\nasyncio.run(main())", 1)
    assert ran.strip() == ""
    scope: dict[str, Any] = {}
    exec(compile(main, f"README example {number}", "exec"), scope)
    await scope["main"]()
    printed = capsys.readouterr().out
    assert ["open https://", "ended: ", "of 3 jobs are running", "3 jobs are running"][number] in printed


async def test_the_configuration_of_a_service_is_accepted_as_it_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHER_PASSWORD", "canary")
    monkeypatch.setenv("ALERTS_SECRET", "whsec_" + "x" * 32)
    (text,) = re.findall(r"```toml\n(.*?)```", README, re.DOTALL)
    file = tmp_path / "vizwatch.toml"
    file.write_text(text.replace("/var/lib/vizwatch", str(tmp_path)))
    assert await run_service(file, only_check=True, dask=None) == 0


def test_the_units_of_a_service_fit_its_configuration() -> None:
    yaml = pytest.importorskip("yaml")
    (unit,) = re.findall(r"```ini\n(.*?)```", README, re.DOTALL)
    parsed = configparser.ConfigParser()
    parsed.read_string(unit)
    assert parsed["Service"]["ExecStart"].split()[1:] == ["run", "/etc/vizwatch.toml"]
    assert parsed["Service"]["RestartPreventExitStatus"] == str(int(ExitCode.USAGE))
    (manifest,) = re.findall(r"```yaml\n(.*?)```", README, re.DOTALL)
    (container,) = yaml.safe_load(manifest)["spec"]["template"]["spec"]["containers"]
    assert container["args"][1] == "run"
    (port,) = {container[probe]["httpGet"]["port"] for probe in ("livenessProbe", "readinessProbe")}
    assert f":{port}" in README.split("```toml")[1]
