"""The pytest fixture `vizwatch_emulator`: an emulated cloud of each test's own.

pytest loads this wherever vizwatch is installed, so it imports the emulator only for tests that ask for it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from vizwatch.emulator import Emulator

try:
    import pytest_asyncio
except ImportError:

    @pytest.fixture
    def vizwatch_emulator() -> None:
        """A running `vizwatch.emulator.Emulator`; it needs pytest-asyncio, which is not installed."""
        text = "the fixture vizwatch_emulator needs pytest-asyncio: pip install pytest-asyncio"
        pytest.fail(text, pytrace=False)

else:

    @pytest_asyncio.fixture
    async def vizwatch_emulator() -> AsyncIterator[Emulator]:  # type: ignore[misc] # or the one above
        """A running `vizwatch.emulator.Emulator`, with no jobs yet."""
        from vizwatch.emulator import Emulator  # noqa: PLC0415 - most test runs never need it

        async with Emulator() as cloud:
            yield cloud
