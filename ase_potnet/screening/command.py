"""What `potnet screen` and `potnet report` do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ase_potnet.screening.export import check_name, export
from ase_potnet.screening.screening import Summary, screen
from ase_potnet.screening.sources import Files


def run_screen(
    sources: Sequence[str],
    tasks: str,
    out: Path,
    *,
    settings: Sequence[str] = (),
    exports: Sequence[Path] = (),
    processes: int = 0,
    config: Path | None = None,
    shard: int = 1000,
    **arguments: Any,
) -> Summary:
    """Screen files into a file of results, then export it; several processes or Parsl where asked for.

    Raises ValueError naming what is wrong, OSError where out cannot be written.
    """
    if shard < 1:
        raise ValueError(f"--shard: wanted a positive number of crystals, got {shard}")
    for path in exports:
        check_name(path)
        path.parent.mkdir(parents=True, exist_ok=True)
    options = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals or "." not in key:
            raise ValueError(f"--set: wanted task.option=value, got {setting!r}")
        options[key] = value
    files = Files(tuple(sources), (out, *exports))
    if processes or config is not None:
        from ase_potnet.screening.shards import screen_shards

        summary = screen_shards(
            files, tasks, out, options=options, processes=processes, config=config, size=shard,
            progress=True, **arguments,
        )  # fmt: skip
    else:
        with screen(files, tasks, out, options=options, progress=True, **arguments) as run:
            for _ in run:
                pass
        summary = run.summary
    return summary


def export_all(results: Path, exports: Sequence[Path]) -> None:
    """Write every export. Raises ValueError at the end if some cannot be written."""
    failures = []
    for path in exports:
        try:
            export(results, path)
        except (ValueError, OSError, ModuleNotFoundError) as error:
            failures.append(f"{path}: {error}")
    if failures:
        raise ValueError(f"export: {'; '.join(failures)}")
