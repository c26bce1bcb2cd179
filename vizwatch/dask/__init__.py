"""Watching more projects than one process holds: a fleet in shards, on a cluster of Dask distributed.

Needs the extra `dask`: without it the names below raise :class:`ConfigError`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vizwatch._values.errors import ConfigError

if TYPE_CHECKING:
    from vizwatch.dask._asking import check_address, watch_fleet
    from vizwatch.dask._cluster import connected
    from vizwatch.dask._watching import ShardedWatch

__all__ = ["ShardedWatch", "check_address", "connected", "watch_fleet"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from vizwatch.dask import _asking, _cluster, _watching  # noqa: PLC0415 - they may miss what they import
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in {"dask", "distributed"}:
            raise
        reason = "vizwatch.dask needs its extra: pip install 'vizwatch[dask]'"
    else:
        homes = {"ShardedWatch": _watching, "connected": _cluster}
        return getattr(homes.get(name, _asking), name)
    raise ConfigError(reason)
