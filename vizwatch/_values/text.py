"""Text of the server's, made safe to print."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from typing import Final

# Controls, format characters (bidirectional ones among them), private, unassigned and lone surrogate code
# points, line and paragraph separators.
_UNSAFE: Final = frozenset({"Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp"})
_SHORTEST_SECRET: Final = 6


def printable(text: str, limit: float = 200) -> str:
    r"""Returns `text` in one line, cut to `limit` characters, with control characters written as escapes.

    A terminal obeys nothing in it: no colours, no moved cursor, no reversed reading direction.

    >>> printable("job\x1b[2J\u202e")
    'job\\x1b[2J\\u202e'
    >>> printable("abcdef", limit=4)
    'abc…'
    """
    if len(text) > limit:
        text = text[: max(int(limit) - 1, 0)] + "…"
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escaped(one) if unicodedata.category(one) in _UNSAFE else one for one in text)


def _escaped(one: str) -> str:
    number = ord(one)
    if number <= 0xFF:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number <= 0xFFFF else f"\\U{number:08x}"


def redacted(text: str, secrets: Iterable[str]) -> str:
    """Returns `text` with every occurrence of a secret replaced by ``***``."""
    for secret in secrets:
        if len(secret) >= _SHORTEST_SECRET:
            text = text.replace(secret, "***")
    return text
