"""Draws what the benchmarks wrote down: `python -m benchmarks.plots` makes an SVG of each curve.

What cost grows with, from `scaling.json`, and how late a change is seen at how many requests, from
`delay.json`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from benchmarks._frame import RESULTS
from benchmarks._plot import Plot, Point

_WHO: Final[Mapping[str, str]] = {"vizwatch": "vizwatch", "fixed": "fixed interval"}
_FIGURES: Final[Mapping[str, str]] = {"mean": "mean", "p95": "95 %"}


def drawn(folder: Path = RESULTS) -> list[Path]:
    """Draws all curves that were written down in that folder; gives the files."""
    plots = dict([*_costs(_found(folder, "scaling")), *_delays(_found(folder, "delay"))])
    paths = []
    for name, plot in plots.items():
        path = folder / f"{name}.svg"
        path.write_text(plot.svg(), encoding="utf-8")
        paths.append(path)
    return paths


def _found(folder: Path, name: str) -> Mapping[str, Any]:
    path = folder / f"{name}.json"
    document: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return document


def _costs(found: Mapping[str, Any]) -> Iterator[tuple[str, Plot]]:
    for curve in found.get("curves", ()):
        series = {name: [Point(*figures) for figures in points] for name, points in curve["series"].items()}
        yield (
            f"cost-of-{curve['name']}",
            Plot(title=f"{curve['y']}, by {curve['x']}", x=curve["x"], y=curve["y"], series=series),
        )


def _delays(found: Mapping[str, Any]) -> Iterator[tuple[str, Plot]]:
    curve = found.get("curve", ())
    if not curve:
        return
    series = {
        f"{name}, {said}": [Point(point[who]["requests"], *[point[who][figure]] * 3) for point in curve]
        for who, name in _WHO.items()
        for figure, said in _FIGURES.items()
    }
    yield (
        "delay",
        Plot(
            title="How late a change is seen, by requests",
            x="requests a job's life",
            y="seconds",
            series=series,
        ),
    )


def main() -> None:
    """The command line."""
    for path in drawn():
        print(path)


if __name__ == "__main__":
    main()
