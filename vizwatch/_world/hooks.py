"""Telling the functions of the user's that stand in the settings."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final, TypeVar

T = TypeVar("T")

_LOG: Final = logging.getLogger("vizwatch")


def tell(name: str, hook: Callable[[T], object], told: T) -> None:
    """Tells a hook; what it raises is logged, and ends nothing.

    Args:
        name: That of its field of the settings.
        hook: The user's function.
        told: What happened.
    """
    try:
        hook(told)
    except (Exception, asyncio.CancelledError):  # noqa: BLE001 - the user's must not end a call or a watch
        _LOG.exception("Settings.%s failed", name)
