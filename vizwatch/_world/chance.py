"""Chance: it spreads what would otherwise come all at once."""

from __future__ import annotations

import os
import random
from typing import Final

CHANCE: Final = random.Random()
"""The library's own: a program that seeds Python's is not disturbed, and does not make its clients alike."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=CHANCE.seed)
