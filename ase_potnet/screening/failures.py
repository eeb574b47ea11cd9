"""Why a crystal has no result."""

from __future__ import annotations

BAD_FILE = "bad file"
BAD_STRUCTURE = "bad structure"
UNSUPPORTED = "unsupported element"
NOT_PERIODIC = "not periodic"
NOT_CONVERGED = "not converged"
EXPLODED = "exploded"
TIME_LIMIT = "time limit"
TASK_ERROR = "task error"
NO_REFERENCE = "no reference"
DIED = "process died"


class ScreeningFailure(Exception):
    """A crystal that a task cannot deal with; becomes a record.

    reason: one of a few, which the summary counts
    message: what happened
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(f"{reason}: {message}")
        self.reason, self.message = reason, message
