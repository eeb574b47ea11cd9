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
    for path in exports:
        check_name(path)
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
    for path in exports:
        export(out, path)
    return summary
