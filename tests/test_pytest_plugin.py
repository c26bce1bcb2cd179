"""The plugin gives every test a cloud of its own, costs nothing unasked, and says what it needs."""

import importlib.metadata
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
INSTALLED = any(importlib.metadata.entry_points(group="pytest11", name="vizwatch"))
CONFIG = """
[pytest]
asyncio_mode = {mode}
asyncio_default_fixture_loop_scope = function
filterwarnings = error
"""
ALONE = ("-p", "no:asyncio", "-p", "no:looptime_plugin")


def run(folder: Path, test: str, config: str, *options: str) -> str:
    """Run pytest on a test in a process of its own, and give what it printed."""
    (folder / "test_it.py").write_text(test)
    (folder / "pytest.ini").write_text(config)
    # Where vizwatch is installed, pytest loads the plugin by itself, and must not load it twice.
    plugins = {} if INSTALLED else {"PYTEST_PLUGINS": "vizwatch.pytest_plugin"}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-q", *options],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), **plugins},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return done.stdout + done.stderr


@pytest.mark.parametrize("mode", ["auto", "strict"])
def test_each_test_gets_a_running_cloud_of_its_own(mode: str, tmp_path: Path) -> None:
    test = """
import aiohttp, pytest

@pytest.mark.asyncio
@pytest.mark.parametrize("turn", [1, 2])
async def test_it(turn, vizwatch_emulator):
    cloud = vizwatch_emulator
    assert cloud.add_jobs(status=8) == [1]
    url = f"{cloud.endpoint}/v1/{cloud.project_id}/visualization-jobs"
    async with aiohttp.ClientSession() as session:
        async with session.get(url, headers={"X-Auth-Token": cloud.token}) as response:
            assert (await response.json())["job_total_count"] == 1
"""
    assert "2 passed" in run(tmp_path, test, CONFIG.format(mode=mode))


def test_the_clouds_clock_follows_virtual_time_though_the_fixture_began_in_real_time(tmp_path: Path) -> None:
    test = """
import asyncio, pytest

@pytest.mark.looptime
async def test_it(vizwatch_emulator):
    before = vizwatch_emulator.now
    await asyncio.sleep(3600)
    assert 3599 < vizwatch_emulator.now - before < 3601
"""
    assert "1 passed" in run(tmp_path, test, CONFIG.format(mode="auto"))


def test_the_plugin_imports_the_emulator_only_when_asked(tmp_path: Path) -> None:
    test = """
import sys

def test_it():
    assert "vizwatch.pytest_plugin" in sys.modules
    assert "vizwatch.emulator" not in sys.modules
"""
    assert "1 passed" in run(tmp_path, test, "[pytest]", *ALONE)


def test_without_pytest_asyncio_only_the_fixture_fails_and_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "pytest_asyncio.py").write_text("raise ImportError")
    test = """
def test_other():
    pass

def test_it(vizwatch_emulator):
    pass
"""
    printed = run(tmp_path, test, "[pytest]", *ALONE)
    assert "1 passed, 1 error" in printed
    assert "pip install pytest-asyncio" in printed
