"""Screening: tasks on thousands of crystals, in batches, resumable, on one machine or many."""

from ase_potnet.screening.engine import Ask
from ase_potnet.screening.failures import ScreeningFailure
from ase_potnet.screening.screening import Screening, Summary, screen
from ase_potnet.screening.store import Record, records
from ase_potnet.screening.tasks import Crystal, Task

__all__ = ["Ask", "Crystal", "Record", "Screening", "ScreeningFailure", "Summary", "Task", "records", "screen"]
