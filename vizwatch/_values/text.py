"""Text of the server's, made safe to print."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable
from typing import Final
from urllib.parse import quote, quote_plus

# Controls, format characters (bidirectional ones among them), private, unassigned and lone surrogate code
# points, line and paragraph separators.
UNSAFE: Final = frozenset({"Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp"})
_SHORTEST_SECRET: Final = 4
_SHORTEST_PART: Final = 16  # shorter than any key and signature


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
    return "".join(_escaped(one) if unicodedata.category(one) in UNSAFE else one for one in text)


def _escaped(one: str) -> str:
    number = ord(one)
    if number <= 0xFF:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number <= 0xFFFF else f"\\U{number:08x}"


def redacted(text: str, secrets: Iterable[str]) -> str:
    r"""Returns `text` with every occurrence of a secret replaced by ``***``.

    Also as JSON, a URL or a page would write it, and of its parts those that are long enough to be one.

    >>> redacted(r'''no: {"password": "a\"secret"}''', ['a"secret'])
    'no: {"password": "***"}'
    """
    for secret in secrets:
        for form in sorted(_forms(secret), key=len, reverse=True):
            text = text.replace(form, "***")
    return text


def _forms(secret: str) -> set[str]:
    import html  # noqa: PLC0415 - for an error alone, and its entities are many

    forms = {secret, html.escape(secret), quote(secret), quote(secret, safe=""), quote_plus(secret)}
    for is_ascii in (True, False):
        once = json.dumps(secret, ensure_ascii=is_ascii)[1:-1]
        forms |= {once, json.dumps(once, ensure_ascii=is_ascii)[1:-1]}
    parts = {part for part in re.split(r"[ ,=]+", secret) if len(part) >= _SHORTEST_PART}
    return {form for form in forms if len(form) >= _SHORTEST_SECRET} | parts
