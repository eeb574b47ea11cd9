from __future__ import annotations

import math

import pytest
import torch

from ase_potnet.training.losses import LossTerm, combine, masked_loss
from ase_potnet.training.schedules import rate_factor, weight_at

NAN = float("nan")


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("mse", 0.25 + 9.0), ("l1", 0.5 + 3.0), ("huber", 0.5 * 0.25 + 2.0 * (3.0 - 1.0)), ("norm", 0.5 + 3.0)],
)
def test_known_labels_count_and_missing_ones_do_not(kind: str, expected: float) -> None:
    error = torch.tensor([0.5, NAN, -3.0], dtype=torch.float64, requires_grad=True)
    total, count = masked_loss(kind, error, torch.tensor([True, False, True]), delta=2.0)  # type: ignore[arg-type]
    assert total.item() == pytest.approx(expected)
    assert count.item() == 2
    total.backward()
    assert error.grad is not None
    assert error.grad[1] == 0
    assert torch.isfinite(error.grad).all()


def test_norm_is_the_length_of_a_row() -> None:
    error = torch.tensor([[3.0, 4.0, 0.0], [0.0, 0.0, 0.0]], requires_grad=True)
    total, count = masked_loss("norm", error, torch.ones(2, 3, dtype=torch.bool))
    assert (total.item(), count.item()) == (5.0, 2)
    total.backward()
    assert error.grad is not None
    torch.testing.assert_close(error.grad, torch.tensor([[0.6, 0.8, 0.0], [0.0, 0.0, 0.0]]))


def test_frame_weights_multiply_rows_and_leave_the_count() -> None:
    error = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    total, count = masked_loss("l1", error, torch.ones(2, 2, dtype=torch.bool), torch.tensor([10.0, 0.5]))
    assert (total.item(), count.item()) == (30.0 + 3.5, 4)


def test_unknown_loss_is_named() -> None:
    with pytest.raises(ValueError, match="kind: wanted one of mse, l1, huber, norm, got 'l3'"):
        masked_loss("l3", torch.zeros(1), torch.ones(1, dtype=torch.bool))  # type: ignore[arg-type]


def test_terms_are_weighted_means() -> None:
    terms = [
        LossTerm("a", torch.tensor(6.0), torch.tensor(3), 1.0),
        LossTerm("b", torch.tensor(5.0), torch.tensor(2), 10.0),
        LossTerm("none", torch.tensor(0.0), torch.tensor(0), 7.0),
    ]
    assert combine(terms).item() == pytest.approx(2.0 + 25.0)


def test_one_cycle_rises_and_falls() -> None:
    def rate(progress: float) -> float:
        return rate_factor("one-cycle", progress, warmup=0.3, final=1e-3)

    assert rate(0.0) == pytest.approx(1 / 25)
    assert rate(0.3) == pytest.approx(1.0)
    assert rate(0.65) == pytest.approx((1 + 1e-3) / 2)
    assert rate(1.0) == pytest.approx(1e-3)
    assert rate(0.15) == pytest.approx((1 + 1 / 25) / 2)


def test_cosine_and_constant_warm_up_straight() -> None:
    assert rate_factor("cosine", 0.05, warmup=0.1, final=0.0) == pytest.approx(0.5)
    assert rate_factor("cosine", 0.55, warmup=0.1, final=0.0) == pytest.approx(0.5)
    assert rate_factor("constant", 0.05, warmup=0.1, final=0.0) == pytest.approx(0.5)
    assert rate_factor("constant", 0.9, warmup=0.1, final=0.0) == 1.0
    assert rate_factor("cosine", 1.0, warmup=0.0, final=0.25) == pytest.approx(0.25)


def test_weights_change_along_the_training() -> None:
    assert weight_at(3.0, 0.7) == 3.0
    assert math.isclose(weight_at((1.0, 5.0), 0.25), 2.0)
    assert weight_at((1.0, 5.0), 2.0) == 5.0
