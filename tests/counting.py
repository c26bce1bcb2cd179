"""Counting what was asked of the emulated cloud."""

from __future__ import annotations

from collections import Counter

from vizwatch.emulator import Emulator


def reads(cloud: Emulator) -> Counter[str]:
    """How often the listing was read, and how often details."""
    return Counter(
        "list" if request.path.endswith("visualization-jobs") else "details"
        for request in cloud.requests
        if request.method == "GET"
    )


def operations(cloud: Emulator) -> Counter[str]:
    """The same, and how often all else came, by their methods."""
    return reads(cloud) + Counter(request.method for request in cloud.requests if request.method != "GET")
