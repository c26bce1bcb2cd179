"""Transitions that wait for a consumer slower than its job."""

from __future__ import annotations

from collections import deque

import attrs

from vizwatch._values.models import Transition


@attrs.define
class Mailbox:
    """Keeps the transitions of one job in order, up to a bound; beyond it, the newest ones become one.

    What is taken out still chains and has no echo: a transition that stands for several goes from the status
    before the first to the status after the last of them, and says how many it left out. Changes that lead
    back to where they began vanish, and are counted by the next one.
    """

    bound: int
    """How many transitions are kept at most; 1 keeps the newest state alone."""
    _waiting: deque[Transition] = attrs.field(factory=deque, init=False)
    _staying: Transition | None = attrs.field(default=None, init=False)
    """One that becomes no other's part."""
    _vanished: int = attrs.field(default=0, init=False)
    _taken_run: int = attrs.field(default=1, init=False)
    """The run of what was taken last."""

    def put(self, transition: Transition, *, stays: bool = False) -> None:
        """A change that comes after all others; one that stays becomes no part of another, bound or not."""
        if stays:
            self._staying = transition
        if self._vanished:
            transition = attrs.evolve(transition, skipped=transition.skipped + self._vanished)
            self._vanished = 0
        if len(self._waiting) < self.bound or self._waiting[-1] is self._staying:
            self._waiting.append(transition)
            return
        last = self._waiting.pop()
        skipped = last.skipped + transition.skipped + 1
        run_before = self._waiting[-1].run if self._waiting else self._taken_run
        if last.previous is not None and (last.previous, run_before) == (transition.current, transition.run):
            self._vanished = skipped + 1
            return
        self._waiting.append(
            attrs.evolve(
                transition,
                previous=last.previous,
                not_before=last.not_before,
                gap=transition.gap or last.gap,
                skipped=skipped,
            )
        )

    def take(self) -> Transition | None:
        """The oldest one; ``None`` if none waits."""
        if not self._waiting:
            return None
        taken = self._waiting.popleft()
        self._taken_run = taken.run
        return taken
