"""From the entries of a source to a data set: builds, checks and counts; broken entries are reported, never fatal."""

from __future__ import annotations

import contextlib
import warnings
from collections import Counter
from collections.abc import Generator, Iterable

from ase_potnet.readers.entry import Entry, reason_of
from ase_potnet.readers.structures import check

from .dataset import Dataset, Record, as_number, unique


def collect(
    entries: Generator[Entry, None, None],
    *,
    targets: Iterable[str] | str | None,
    limit: int | None,
    source: object,
) -> Dataset:
    """The data set of a source's entries.

    Args:
        entries: the entries; closed when the limit is reached
        targets: names of the targets to keep; None keeps every field that is a number in at least one entry
        limit: read at most this many entries that are not broken
        source: named in errors

    Raises:
        ValueError: no entry could be used, a target that no entry has as a field, or a limit below 1.
    """
    wanted = [targets] if isinstance(targets, str) else None if targets is None else list(targets)
    if limit is not None and limit < 1:
        raise ValueError(f"limit: wanted at least 1 or None, got {limit}")
    records: list[Record] = []
    broken: list[tuple[str, str]] = []
    fields: dict[str, None] = {}
    with contextlib.closing(entries), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # third-party parsers: of no use among thousands of entries
        for entry in entries:
            fields.update(dict.fromkeys(entry.values))
            try:
                records.append(_record(entry, wanted))
            except Exception as error:  # parsers raise anything
                broken.append((entry.id, reason_of(error)))
            if len(records) == limit:
                break
    _complain(source, records, broken, fields, wanted)
    present = Counter(name for record in records for name in record.targets)
    names = [name for name in fields if name in present] if wanted is None else wanted
    skipped = {name: len(records) - present[name] for name in names if present[name] < len(records)}
    return Dataset(unique(records), skipped=skipped, broken=broken)


def _record(entry: Entry, wanted: list[str] | None) -> Record:
    """The entry, built and checked."""
    atoms = entry.build()
    check(atoms)
    targets: dict[str, float] = {}
    for name in entry.values if wanted is None else wanted:
        number = as_number(entry.values.get(name))
        if number is None and wanted is not None and name not in entry.values and atoms.calc is not None:
            number = as_number(atoms.calc.results.get(name))  # asked for by name: the energy of a calculation
        if number is not None:
            targets[name] = number
    return Record(entry.id, atoms, targets, entry.group)


def _complain(
    source: object,
    records: list[Record],
    broken: list[tuple[str, str]],
    fields: Iterable[str],
    wanted: list[str] | None,
) -> None:
    """Raise ValueError if nothing can be done with what was read."""
    if not records and broken:
        name, reason = broken[0]
        raise ValueError(f"{source}: none of {len(broken)} entries can be used; the first, {name}: {reason}")
    if not records:
        raise ValueError(f"{source}: no entries")
    results = {name for record in records if record.atoms.calc is not None for name in record.atoms.calc.results}
    for name in wanted or ():
        if name not in fields and name not in results:
            raise ValueError(f"targets: {source} has no field {name!r}; it has {', '.join(fields) or 'none'}")
