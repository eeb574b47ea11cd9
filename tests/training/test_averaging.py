from __future__ import annotations

import torch
from torch import nn

from ase_potnet.training.averaging import WeightAverage


def test_average_is_the_hand_computed_one() -> None:
    model = nn.Linear(1, 1, bias=False)
    values = [4.0, 1.0, -2.0]
    nn.init.constant_(model.weight, 2.0)
    average = WeightAverage(model, decay=0.2)
    expected = 2.0
    for step, value in enumerate(values, start=1):
        nn.init.constant_(model.weight, value)
        average.update(model)
        decay = min(0.2, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * value
    torch.testing.assert_close(average.state["weight"], torch.tensor([[expected]]))


def test_average_is_applied_and_taken_off_again() -> None:
    model = nn.BatchNorm1d(2)
    average = WeightAverage(model, decay=0.5)
    model.train()
    model(torch.randn(8, 2, generator=torch.Generator().manual_seed(0)) + 5)
    nn.init.constant_(model.weight, 3.0)
    average.update(model)
    own = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with average.applied_to(model):
        assert 0 < model.running_mean[0] < own["running_mean"][0]  # type: ignore[index]
        assert torch.equal(model.state_dict()["weight"], average.state["weight"])
        assert model.num_batches_tracked == 1
    assert all(torch.equal(own[name], tensor) for name, tensor in model.state_dict().items())


def test_without_decay_the_average_is_the_weights() -> None:
    model = nn.Linear(3, 2)
    average = WeightAverage(model, decay=0.0)
    nn.init.normal_(model.weight, generator=torch.Generator().manual_seed(1))
    average.update(model)
    assert torch.equal(average.state["weight"], model.weight)


def test_state_survives_a_checkpoint() -> None:
    model = nn.Linear(2, 2)
    average = WeightAverage(model, decay=0.9)
    nn.init.constant_(model.weight, 1.0)
    average.update(model)
    other = WeightAverage(nn.Linear(2, 2), decay=0.9)
    other.load_state_dict(average.state_dict())
    for copy in (average, other):
        copy.update(model)
    assert torch.equal(average.state["weight"], other.state["weight"])
