"""What all tests share: an emulated cloud, a client for it, hand-made answers, and a watch over leaks."""

from __future__ import annotations

import asyncio
import gc
import inspect
import os
import sys
from collections.abc import AsyncIterator, Iterator
from types import SimpleNamespace
from typing import Any

import aiohttp
import hypothesis
import pytest
from aioresponses import aioresponses
from faults import CATALOGUE

import vizwatch
from vizwatch._world.chance import CHANCE
from vizwatch.emulator import Emulator

# What is right does not depend on how fast the machine is; what comes by chance is the same in each run.
hypothesis.settings.register_profile("vizwatch", deadline=None)
hypothesis.settings.load_profile("vizwatch")
hypothesis.register_random(CHANCE)

ENDPOINT = "https://modelarts.eu-de.otc.t-systems.com"
PROJECT = "04f679b17380d32a2f32c00335c4b5ba"
JOBS = f"{ENDPOINT}/v1/{PROJECT}/visualization-jobs"


_OF_THE_TERMINAL = {"COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR"}


class _ClientResponse(aiohttp.ClientResponse):
    """aioresponses 0.7.9 does not give what aiohttp 3.14 asks for."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"stream_writer": SimpleNamespace(output_size=0), **kwargs})


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> Iterator[aioresponses]:
    """Answers made by hand, for what no server would say."""
    monkeypatch.setattr("aioresponses.core.ClientResponse", _ClientResponse)
    with aioresponses() as mock:
        yield mock


@pytest.fixture
async def client() -> AsyncIterator[vizwatch.Client]:
    """A client of a cloud that is not there; its answers come from `answers`."""
    async with vizwatch.Client(ENDPOINT, PROJECT, auth="canary-token") as opened:
        yield opened


@pytest.fixture
async def cloud() -> AsyncIterator[Emulator]:
    """An emulated cloud of its own for each test."""
    async with Emulator() as running:
        yield running


@pytest.fixture
async def here(cloud: Emulator) -> AsyncIterator[vizwatch.Client]:
    """A client of the emulated cloud."""
    async with vizwatch.Client(cloud.endpoint, cloud.project_id, auth=cloud.token) as opened:
        yield opened


@pytest.fixture(autouse=True)
def _no_configuration_of_ours(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Tests find none of the configuration of whoever runs them."""
    for name in os.environ:
        if name.startswith(("VIZWATCH_", "HUAWEICLOUD_", "OS_")) or name in _OF_THE_TERMINAL:
            monkeypatch.delenv(name)
    home = str(tmp_path_factory.getbasetemp())
    monkeypatch.setenv("HOME", home)
    monkeypatch.setenv("USERPROFILE", home)


@pytest.fixture(autouse=True)
def _chance(request: pytest.FixtureRequest) -> None:
    """Each test has a chance of its own, the same in each run, whatever ran before it."""
    CHANCE.seed(request.node.nodeid)


@pytest.fixture(autouse=True)
def _unmeasured(request: pytest.FixtureRequest) -> Iterator[None]:
    """What repeats the same lines for a million times is not slowed down by counting them."""
    measuring = sys.gettrace() if request.node.get_closest_marker("repeats") else None
    if measuring is None:
        yield
        return
    sys.settrace(None)
    try:
        yield
    finally:
        sys.settrace(measuring)


@pytest.fixture
async def _no_leaks() -> AsyncIterator[None]:
    """Fails a test that leaves a task, or anything whose finalizer warns."""
    before = asyncio.all_tasks()
    yield
    for _ in range(3):
        await asyncio.sleep(0)
    left = asyncio.all_tasks() - before - {asyncio.current_task()}
    gc.collect()
    assert not left, f"tasks left running: {left}"


def pytest_configure() -> None:
    """Leaves no event loop lying about that nobody closes, as the policy's default does on Python 3.11."""
    asyncio.set_event_loop(None)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Watches every asynchronous test for leaks, and lets `-k` select the tests of a row of the catalogue."""
    for item in items:
        for mark in item.iter_markers("fault"):
            unknown = set(mark.args) - set(CATALOGUE)
            if unknown or not mark.args:
                raise pytest.UsageError(
                    f"{item.nodeid}: not in the catalogue of faults: {unknown or 'no row'}"
                )
            item.extra_keyword_matches.update(mark.args)
        if isinstance(item, pytest.Function) and inspect.iscoroutinefunction(item.obj):
            item.fixturenames.insert(0, "_no_leaks")
