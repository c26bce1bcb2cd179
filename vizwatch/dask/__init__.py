"""Watching more projects than one process holds: a fleet in shards, on a cluster of Dask distributed.

Needs the extra `dask`.
"""

from __future__ import annotations

from vizwatch.dask._watching import ShardedWatch, watch_fleet

__all__ = ["ShardedWatch", "watch_fleet"]
