"""Whether a secret shows."""

from __future__ import annotations

import traceback


def shown(error: BaseException) -> str:
    """All that a log or a debugger shows of an error: text, causes, and the package's local variables."""
    below_the_test = error.with_traceback(error.__traceback__ and error.__traceback__.tb_next)
    report = traceback.TracebackException.from_exception(below_the_test, capture_locals=True)
    return "".join(report.format(chain=True)) + repr(error) + str(error) + repr(vars(error))
