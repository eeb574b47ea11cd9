"""What a long run shows while it runs: a bar or lines with rate, failures and remaining time."""

from __future__ import annotations

import contextlib
import sys
import time
import warnings
from collections.abc import Callable, Iterator

from ase_potnet.readers.files import Progress, bar_wanted

LINE_SECONDS = 60.0  # between two lines where stderr is no terminal

Report = Callable[[int, int], None]  # finished frames and failures among them, those of earlier runs included


@contextlib.contextmanager
def show(
    total: int | None, done: int, progress: Progress, *, what: str = "labelling", unit: str = "frames"
) -> Iterator[Report]:
    """A function to call with numbers of finished and failed frames: draws a bar, or a line a minute on stderr
    where that is no terminal, or nothing.

    Args:
        total: frames of the whole run; None where it is not known
        done: frames that earlier runs have finished
        progress: True, "always" (a bar in any case) or False
        what, unit: what is done to what
    """
    if not progress:
        yield lambda finished, failed: None
    elif bar_wanted(progress):
        with _bar(total, done, what) as report:
            yield report
    else:
        yield _lines(total, done, what, unit)


@contextlib.contextmanager
def _bar(total: int | None, done: int, what: str) -> Iterator[Report]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[state]}"))
    start = time.monotonic()
    with Bar(*columns, console=Console(file=sys.stderr), transient=True) as bar:
        task = bar.add_task(what, total=total, completed=done, state="")

        def report(finished: int, failed: int) -> None:
            state = describe(total, finished, failed, finished - done, time.monotonic() - start)
            bar.update(task, completed=finished, state=state)

        yield report


def _lines(total: int | None, done: int, what: str, unit: str) -> Report:
    start = last = time.monotonic()

    def report(finished: int, failed: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= LINE_SECONDS:
            last = now
            state = describe(total, finished, failed, finished - done, now - start)
            of = "" if total is None else f"/{total:,}"
            sys.stderr.write(f"{time.strftime('%H:%M:%S')} {what} {finished:,}{of} {unit}, {state}\n")
            sys.stderr.flush()

    return report


def describe(total: int | None, finished: int, failed: int, new: int, seconds: float) -> str:
    """Rate, failures and remaining time as text; `new` frames took `seconds`."""
    rate = new / seconds if seconds > 0 else 0.0
    if total is None:
        return f"{rate:.3g} a second, {failed:,} failed"
    left = f"{clock((total - finished) / rate)} left" if rate > 0 else "? left"
    return f"{rate:.3g} a second, {failed:,} failed, {left}"


def clock(seconds: float) -> str:
    """A time as text: 45 s, 12 min, 3.4 h, 2.1 d."""
    for unit, size, limit in (("s", 1.0, 120.0), ("min", 60.0, 7200.0), ("h", 3600.0, 172800.0)):
        if seconds < limit:
            return f"{seconds / size:.{1 if unit == 'h' else 0}f} {unit}"
    return f"{seconds / 86400:.1f} d"


@contextlib.contextmanager
def warnings_as_lines(category: type[Warning]) -> Iterator[None]:
    """Warnings as lines on stderr, for a command; those of the category in any case, those for programmers never."""
    with warnings.catch_warnings(record=True) as raised:
        warnings.simplefilter("always", category)
        yield
    for warning in raised:
        if not issubclass(warning.category, DeprecationWarning | PendingDeprecationWarning):
            sys.stderr.write(f"warning: {warning.message}\n")
