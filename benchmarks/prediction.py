"""Time of a property: `OMP_NUM_THREADS=N python benchmarks/prediction.py jdft_3d-12-12-2022.json.zip [--threads N]`.

Milliseconds a crystal, structures in memory, sums and graphs included: crystals of 10 atoms one at a time, and crystals
of all sizes in automatic batches. The model is loaded before. Medians, the fastest in brackets.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import torch

from ase_potnet import predict
from ase_potnet.prediction import predict_batches
from ase_potnet.pretrained import load_model, model_info
from ase_potnet.training.data import open_dataset


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="any data set that potnet train reads")
    parser.add_argument("--model", default="jarvis")
    parser.add_argument("--crystals", type=int, default=600, help="of the batches")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    every = [record.atoms for record in open_dataset(options.data)]
    crystals = [every[k] for k in np.random.default_rng(0).permutation(len(every))[: options.crystals]]
    name = model_info(options.model).targets[0].name
    times = []
    for atoms in [atoms for atoms in every if len(atoms) == 10][: 20 + options.repeats]:
        start = time.perf_counter()
        list(predict(atoms, name, options.model))
        times.append(time.perf_counter() - start)
    report("10 atoms, one at a time", times[5:])  # the first ones load the model and warm up
    network = load_model(options.model)
    times = []
    for _ in range(options.repeats):
        start = time.perf_counter()
        list(predict_batches(network, crystals))
        times.append((time.perf_counter() - start) / len(crystals))
    report(f"{np.mean([len(atoms) for atoms in crystals]):.1f} atoms on average, in batches", times)


def report(what: str, times: list[float]) -> None:
    print(f"{what}: {1e3 * np.median(times):.2f} ms ({1e3 * min(times):.2f})")


if __name__ == "__main__":
    main()
