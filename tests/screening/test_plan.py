"""The simulation behind the plan for millions of crystals: cases that can be worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from screening_plan import Costs, simulate

FREE = Costs(read=0, copy=0, shard=0, start=0, begin=0, crystals=np.zeros(0), record=0)


def test_workers_share_equal_shards() -> None:
    assert simulate([1.0] * 12, [10] * 12, 1, FREE) == 12
    assert simulate([1.0] * 12, [10] * 12, 4, FREE) == 3
    assert simulate([1.0] * 13, [10] * 13, 4, FREE) == 4  # a straggler


def test_a_long_shard_at_the_end_keeps_one_worker() -> None:
    assert simulate([1.0, 1.0, 1.0, 5.0], [1] * 4, 2, FREE) == 6
    assert simulate([5.0, 1.0, 1.0, 1.0], [1] * 4, 2, FREE) == 5


def test_one_process_reads_and_copies() -> None:
    costs = Costs(read=0.01, copy=0.002, shard=0.1, start=0, begin=3, crystals=np.zeros(0), record=0)
    assert simulate([2.0], [100], 1, costs) == pytest.approx(100 * 0.01 + 3 + 2 + 0.1 + 100 * 0.002)
    many = simulate([0.1] * 50, [100] * 50, 1000, costs)  # nothing but reading and copying counts
    assert many == pytest.approx(50 * (100 * 0.01 + 0.1 + 100 * 0.002), rel=0.1)
    assert simulate([0.1] * 50, [100] * 50, 10, costs) == pytest.approx(many, rel=0.1)
