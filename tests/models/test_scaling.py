from __future__ import annotations

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk

from ase_potnet.graph import batch_structures
from ase_potnet.models.element_features import MAX_NUMBER, N_FEATURES, element_features
from ase_potnet.models.scaling import NO_MINIMUM, TargetScaling, composition


def fractions(n: int, *numbers: int) -> torch.Tensor:
    parts = torch.rand(n, len(numbers), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    table = torch.zeros(n, 119, dtype=torch.float64)
    table[:, numbers] = parts / parts.sum(1, keepdim=True)
    return table


def test_composition():
    table = composition(batch_structures([bulk("NaCl", "rocksalt", a=5.64), Atoms("OH2", positions=np.eye(3))]))
    assert table.shape == (2, 119)
    assert table[0, [11, 17]].tolist() == [0.5, 0.5]
    torch.testing.assert_close(table[1, [1, 8]], torch.tensor([2, 1], dtype=torch.float64) / 3)
    torch.testing.assert_close(table.sum(1), torch.ones(2, dtype=torch.float64))


def test_statistics_leave_out_what_is_missing():
    scaling = TargetScaling(2)
    nan = float("nan")
    values = torch.tensor([[1.0, nan], [3.0, 10.0], [nan, 10.0]])
    scaling.fit(values)
    assert scaling.mean.tolist() == [2.0, 10.0]
    assert scaling.std.tolist() == [1.0, 1.0]  # a constant target is not divided by zero
    torch.testing.assert_close(scaling.normalise(values)[:2, 0], torch.tensor([-1.0, 1.0]))
    torch.testing.assert_close(scaling.restore(scaling.normalise(values)), values, equal_nan=True)


def test_references_take_the_linear_part():
    table = fractions(200, 3, 8, 26)
    rest = torch.randn(200, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    values = table[:, [3, 8, 26]] @ torch.tensor([-1.0, -6.0, -8.0], dtype=torch.float64) + 0.1 * rest
    plain, scaling = TargetScaling(1), TargetScaling(1)
    plain.fit(values[:, None])
    scaling.fit(values[:, None], table)
    assert plain.std.item() > 1.0
    assert scaling.std.item() == pytest.approx(0.1, rel=0.1)
    normal = scaling.normalise(values[:, None], table)
    assert normal.mean().abs() < 1e-5
    torch.testing.assert_close(scaling.restore(normal, table), values[:, None], rtol=1e-6, atol=1e-6)
    steps = scaling.references[[3, 8, 26], 0].diff()
    torch.testing.assert_close(steps, torch.tensor([-5.0, -2.0]), atol=0.1, rtol=0)
    assert not scaling.references[[1, 2, 79]].any()


def test_predictions_stay_above_the_minimum_but_learn_below_it():
    scaling = TargetScaling(2)
    scaling.minimum.copy_(torch.tensor([NO_MINIMUM, 0.0]))
    outputs = torch.tensor([[-3.0, -2.0], [1.0, 0.5]], requires_grad=True)
    scaling.restore(outputs).sum().backward()
    assert (outputs.grad == 1).all()
    assert scaling.eval().restore(outputs).tolist() == [[-3.0, 0.0], [1.0, 0.5]]


def test_weights_from_before_there_were_minima():
    older, scaling = TargetScaling(2).state_dict(), TargetScaling(2)
    del older["minimum"]
    scaling.load_state_dict(older, strict=True)
    assert scaling.minimum.tolist() == [NO_MINIMUM] * 2


def test_the_loss_needs_no_composition():
    scaling, table = TargetScaling(1), fractions(20, 1, 8)
    values = torch.randn(20, 1)
    scaling.fit(values, table)
    other = values + 0.3
    difference = scaling.normalise(other) - scaling.normalise(values)
    torch.testing.assert_close(difference, scaling.normalise(other, table) - scaling.normalise(values, table))


def test_fit_again_forgets_the_references():
    scaling, values = TargetScaling(1), torch.randn(20, 1)
    scaling.fit(values, fractions(20, 1, 8))
    scaling.fit(values)
    assert not scaling.references.any()


@pytest.mark.parametrize(
    ("values", "table", "message"),
    [
        (torch.zeros(3), None, r"values must have shape \(B, 2\)"),
        (torch.zeros(3, 2), torch.zeros(4, 119), r"fractions must have shape \(3, 119\)"),
        (torch.full((3, 2), torch.nan), None, "none for target 0"),
    ],
)
def test_bad_values(values, table, message):
    with pytest.raises(ValueError, match=message):
        TargetScaling(2).fit(values, table)


BLOCKS = {
    "group": 19,
    "period": 7,
    "X": 10,
    "radius": 10,
    "valence": 12,
    "ionisation": 10,
    "affinity": 10,
    "block": 4,
    "volume": 10,
}


def parts(number: int) -> dict[str, list[int]]:
    """Where the ones are, property by property."""
    row, result = element_features()[number], {}
    for (name, _), part in zip(BLOCKS.items(), row.split(list(BLOCKS.values())), strict=True):
        result[name] = part.nonzero().flatten().tolist()
    return result


def test_features_of_the_elements():
    table = element_features()
    assert table.shape == (MAX_NUMBER + 1, N_FEATURES)
    assert N_FEATURES == sum(BLOCKS.values()) == 92
    assert set(table.unique().tolist()) == {0.0, 1.0}
    assert (table[1:95].sum(1) >= 7).all()
    assert len(table[1:104].unique(dim=0)) > 95  # nearly all elements can be told apart


def test_known_elements():
    iron = {"group": [8], "period": [3], "X": [3], "radius": [4], "valence": [7], "ionisation": [3], "affinity": [4]}
    assert parts(26) == iron | {"block": [2], "volume": [1]}
    assert parts(8)["group"] == [16]
    assert parts(8)["block"] == [1]
    cerium = parts(58)  # f block, no group
    assert (cerium["group"], cerium["period"], cerium["block"]) == ([0], [5], [3])
    assert parts(2)["block"] == [0]
    assert parts(2)["X"] == []  # unknown: no bin
    assert parts(118) == {name: [] for name in BLOCKS} | {"group": [18], "period": [6], "block": [1]}
