from __future__ import annotations

import pytest
import torch
from torch import nn

from ase_potnet.graph import batch_structures
from ase_potnet.models import build_model
from ase_potnet.models.potnet import CompleteAttention, EdgeFeatures, GatedConvolution

from .crystals import CRYSTALS, predict, ready, rewritten
from .test_property_models import SMALL


def test_size_of_the_published_network():
    model = build_model("potnet")
    assert sum(parameter.numel() for parameter in model.parameters()) == pytest.approx(1.75e6, rel=0.01)
    assert model.config.potentials == ("coulomb", "london", "pauli(3.0)")
    assert model.config.coefficients == (-0.801, -0.074, 0.145)


def edges(n_atoms: int, width: int) -> EdgeFeatures:
    generator = torch.Generator().manual_seed(0)
    receiver = torch.arange(n_atoms).repeat_interleave(n_atoms)
    sender = torch.arange(n_atoms).repeat(n_atoms)
    return EdgeFeatures(receiver, sender, torch.randn(n_atoms**2, width, generator=generator, dtype=torch.float64))


def test_three_linears_are_the_linear_of_the_concatenation():
    torch.manual_seed(0)
    width, some = 6, edges(4, 6)
    convolution = GatedConvolution(width).double()
    x = torch.randn(4, width, dtype=torch.float64)
    whole = nn.Linear(3 * width, 2 * width).double()
    with torch.no_grad():
        whole.weight.copy_(
            torch.cat([part.weight for part in (convolution.receiver, convolution.sender, convolution.edge)], 1)
        )
        whole.bias.copy_(convolution.edge.bias)
    hidden = nn.functional.silu(whole(torch.cat((x[some.receiver], x[some.sender], some.features), 1)))
    gate, message = hidden.chunk(2, dim=1)
    messages = torch.sigmoid(convolution.gate(gate)) * convolution.message(message)
    torch.testing.assert_close(convolution(x, some), messages.view(4, 4, width).sum(1))


def test_attention_is_softmax_attention():
    torch.manual_seed(0)
    width, some = 6, edges(4, 6)
    attention = CompleteAttention(width, 1).double()
    x = torch.randn(4, width, dtype=torch.float64)
    edge_key, edge_value = attention.edge(some.features).view(4, 4, 2 * width).chunk(2, dim=2)
    keys, values = attention.key(x)[None] + edge_key, attention.value(x)[None] + edge_value  # (i, j, width)
    weights = torch.softmax((attention.query(x)[:, None] * keys).sum(2) / width**0.5, dim=1)
    torch.testing.assert_close(attention(x, some), attention.out((weights[..., None] * values).sum(1)))


def test_rotation_turns_nothing_but_ties():
    for name, options in (("perovskite", {}), ("rocksalt", {"ties": "shell"}), ("one atom", {"ties": "shell"})):
        torch.manual_seed(0)
        model = ready(build_model("potnet", SMALL["potnet"] | options))
        atoms = CRYSTALS[name]
        torch.testing.assert_close(
            predict(model, rewritten(atoms)["turned"]), predict(model, atoms), rtol=1e-8, atol=1e-9
        )


def test_the_transformer_uses_complete_edges_only():
    torch.manual_seed(0)
    model = ready(build_model("potnet", SMALL["potnet"] | {"infinite_channel": "transformer"}))
    before = predict(model, CRYSTALS["rocksalt"])
    with torch.no_grad():
        for layer in model.layers:
            layer.attention.edge.weight.mul_(3.0)
    assert (predict(model, CRYSTALS["rocksalt"]) - before).abs().max() > 1e-6
    assert build_model("potnet", {"infinite_channel": "transformer", "euclidean": True}).layers[0].attention is None


def test_batch_statistics_are_not_used_in_evaluation():
    model = ready(build_model("potnet", SMALL["potnet"])).train()
    batch = batch_structures(list(CRYSTALS.values()))
    with torch.no_grad():
        training = model(batch)
    model.eval()
    assert not torch.allclose(training, model(batch))
    assert model.layers[0].norm.num_batches_tracked == 1
