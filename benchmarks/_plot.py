"""Curves as SVG: both axes logarithmic, a line a series, its points' spread as bars."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Final
from xml.sax.saxutils import escape

import attrs

_WIDTH: Final = 720
_HEIGHT: Final = 440
_LEFT: Final = 80
_RIGHT: Final = 220
_TOP: Final = 50
_BOTTOM: Final = 60
_COLOURS: Final = ("#0b6e99", "#c0392b", "#2e8b57", "#8e44ad", "#b8860b", "#555555")


@attrs.frozen
class Point:
    """One figure, and between what its runs were."""

    x: float
    y: float
    low: float
    high: float


@attrs.frozen(kw_only=True)
class Plot:
    """Series over one axis. All numbers are greater than zero."""

    title: str
    x: str
    y: str
    series: Mapping[str, Sequence[Point]]

    def svg(self) -> str:
        """The whole document."""
        points = [point for line in self.series.values() for point in line]
        across = _Axis.over([point.x for point in points], _LEFT, _WIDTH - _RIGHT)
        up = _Axis.over([end for point in points for end in (point.low, point.high)], _HEIGHT - _BOTTOM, _TOP)
        lines = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}">',
            f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>',
            _text(_LEFT, 25, self.title, size=15),
            _text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 15, self.x, anchor="middle"),
            _text(15, _TOP - 10, self.y),
            *_grid(across, up),
        ]
        for number, (name, line) in enumerate(self.series.items()):
            colour = _COLOURS[number % len(_COLOURS)]
            lines += _drawn(line, across, up, colour)
            lines.append(_text(_WIDTH - _RIGHT + 12, _TOP + 10 + 20 * number, name, colour=colour))
        return "\n".join([*lines, "</svg>", ""])


@attrs.frozen
class _Axis:
    """From numbers to places, whole powers of ten at both ends."""

    low: int
    high: int
    begin: float
    end: float

    @classmethod
    def over(cls, values: Sequence[float], begin: float, end: float) -> _Axis:
        low = math.floor(math.log10(min(values)))
        return cls(low, max(math.ceil(math.log10(max(values))), low + 1), begin, end)

    def __call__(self, value: float) -> float:
        share = (math.log10(value) - self.low) / (self.high - self.low)
        return round(self.begin + share * (self.end - self.begin), 1)

    @property
    def ticks(self) -> list[float]:
        return [10.0**power for power in range(self.low, self.high + 1)]


def _grid(across: _Axis, up: _Axis) -> Iterator[str]:
    for value in across.ticks:
        place = across(value)
        yield _line(place, up.begin, place, up.end, "#dddddd")
        yield _text(place, up.begin + 18, f"{value:,.15g}", anchor="middle")
    for value in up.ticks:
        place = up(value)
        yield _line(across.begin, place, across.end, place, "#dddddd")
        yield _text(across.begin - 8, place + 4, f"{value:,.15g}", anchor="end")


def _drawn(points: Sequence[Point], across: _Axis, up: _Axis, colour: str) -> Iterator[str]:
    places = " ".join(f"{across(point.x)},{up(point.y)}" for point in points)
    yield f'<polyline points="{places}" fill="none" stroke="{colour}" stroke-width="2"/>'
    for point in points:
        place = across(point.x)
        yield _line(place, up(point.low), place, up(point.high), colour)
        yield f'<circle cx="{place}" cy="{up(point.y)}" r="3" fill="{colour}"/>'


def _line(x1: float, y1: float, x2: float, y2: float, colour: str) -> str:
    return f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" stroke="{colour}"/>'


def _text(
    x: float, y: float, text: str, *, anchor: str = "start", size: int = 12, colour: str = "black"
) -> str:
    style = f'font-family="sans-serif" text-anchor="{anchor}" font-size="{size}" fill="{colour}"'
    return f'<text x="{x}" y="{y}" {style}>{escape(text)}</text>'
