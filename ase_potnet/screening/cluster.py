"""Workers that Parsl starts: processes of this machine, or jobs of SLURM or PBS."""

from __future__ import annotations

import shlex
import sys
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from ase_potnet.screening.shards import Shard, work

PROVIDERS = {"local": "LocalProvider", "slurm": "SlurmProvider", "pbs": "PBSProProvider"}


class ParslPool:
    """Parsl's HighThroughputExecutor. Shards whose worker or node is lost are started again.

    Args:
        config: YAML with ``provider`` (local, slurm, pbs), options of the executor (``max_workers_per_node``,
            ``available_accelerators``: one worker a GPU, ...) and, under ``provider_options``, of the provider.

    Raises:
        ValueError: naming config.
        ModuleNotFoundError: Parsl is not installed.
    """

    def __init__(self, config: str | Path) -> None:
        import parsl

        made = parsl_config(config)
        self._kernel = parsl.load(made)
        self._app: Any = parsl.python_app(work, data_flow_kernel=self._kernel)
        provider = made.executors[0].provider
        workers = made.executors[0].max_workers_per_node
        self.width = max(1, int(min(workers, 64)) * provider.nodes_per_block * provider.max_blocks)

    def submit(self, shard: Shard) -> Future[None]:
        """Start a shard as soon as a worker is free."""
        future: Future[None] = self._app(shard)
        return future

    def renew(self) -> None:
        """Parsl replaces its workers by itself."""

    def close(self) -> None:
        """End the workers."""
        import parsl

        self._kernel.cleanup()
        parsl.clear()


def parsl_config(path: str | Path) -> Any:
    """Parsl's Config from a YAML file. Raises ValueError naming config."""
    import parsl.providers
    import yaml
    from parsl.config import Config
    from parsl.executors import HighThroughputExecutor

    file = Path(path)
    if not file.is_file():
        raise ValueError(f"config: no file {file}")
    data = yaml.safe_load(file.read_text(encoding="utf-8"))
    if not isinstance(data, dict):
        raise ValueError(f"config: {file} wants keys such as provider and max_workers_per_node")
    name = str(data.pop("provider", "local"))
    if name not in PROVIDERS:
        raise ValueError(f"config: provider wants one of {', '.join(PROVIDERS)}, got {name!r}")
    provider_options = data.pop("provider_options", {})
    run_dir = str(data.pop("run_dir", "parsl-runs"))
    programs = Path(sys.executable).parent  # Parsl's own, also where the environment is not activated
    if (programs / "interchange.py").is_file():
        data.setdefault("interchange_launch_cmd", [str(programs / "interchange.py")])
    if name == "local":
        provider_options.setdefault("worker_init", f"export PATH={shlex.quote(str(programs))}:$PATH")
    try:
        provider = getattr(parsl.providers, PROVIDERS[name])(**provider_options)
        executor = HighThroughputExecutor(label="potnet", provider=provider, **data)
    except TypeError as error:
        raise ValueError(f"config: {file}: {error}") from error
    return Config(executors=[executor], run_dir=run_dir, usage_tracking=0)
