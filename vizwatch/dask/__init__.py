"""Watching more projects than one process holds: a fleet in shards, on a cluster of Dask distributed.

Needs the extra `dask`: without it the names below raise :class:`ConfigError`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vizwatch._values.errors import ConfigError

if TYPE_CHECKING:
    from vizwatch.dask._cluster import connected
    from vizwatch.dask._watching import ShardedWatch, watch_fleet

__all__ = ["ShardedWatch", "connected", "watch_fleet"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from vizwatch.dask import _cluster, _watching  # noqa: PLC0415 - what they import may not be installed
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in {"dask", "distributed"}:
            raise
        reason = "vizwatch.dask needs its extra: pip install 'vizwatch[dask]'"
    else:
        return getattr(_cluster if name == "connected" else _watching, name)
    raise ConfigError(reason)
