"""What both networks for properties must do."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule

from ase_potnet.graph import batch_structures
from ase_potnet.models import build_model, model_name
from ase_potnet.models.scaling import composition

from .crystals import CRYSTALS, predict, ready, rewritten

SMALL = {
    "potnet": {"width": 16, "n_layers": 2, "n_heads": 2},
    "invariant-potnet": {
        "width": 16,
        "n_layers": 2,
        "message_width": 12,
        "n_radial": 8,
        "n_angular_radial": 4,
        "n_angular_sources": 3,
        "angular_width": 5,
        "n_sources": 4,
    },
}
VARIANTS = {
    "potnet": ("potnet", {}),
    "potnet, transformer": ("potnet", {"infinite_channel": "transformer"}),
    "potnet, euclidean": ("potnet", {"euclidean": True}),
    "potnet, shells": ("potnet", {"ties": "shell"}),
    "invariant": ("invariant-potnet", {}),
    "invariant, euclidean": ("invariant-potnet", {"euclidean": True}),
    "invariant, no angles": ("invariant-potnet", {"l_max": -1}),
}
every_variant = pytest.mark.parametrize("variant", VARIANTS)


def small(variant: str, **options):
    torch.manual_seed(0)
    name, more = VARIANTS[variant]
    return ready(build_model(name, SMALL[name] | {"n_targets": 2} | more | options))


def batch(dtype=torch.float64):
    return batch_structures([*CRYSTALS.values(), molecule("CO"), bulk("Si") * (2, 1, 1)], dtype=dtype)


@every_variant
def test_one_row_a_structure_in_the_units_of_the_target(variant):
    model = small(variant)
    raw = model(batch())
    assert raw.shape == (5, 2)
    assert torch.isfinite(raw).all()
    model.scaling.mean += torch.tensor([3.0, -1.0])
    model.scaling.std *= torch.tensor([0.5, 4.0])
    model.scaling.references[8] = torch.tensor([1.0, 2.0])
    oxygen = composition(batch())[:, 8:9] * torch.tensor([1.0, 2.0])
    wanted = raw * torch.tensor([0.5, 4.0]) + torch.tensor([3.0, -1.0]) + oxygen
    torch.testing.assert_close(model(batch()), wanted)


@every_variant
def test_a_prediction_does_not_depend_on_the_batch(variant):
    model = small(variant)
    structures = [*CRYSTALS.values(), molecule("CO"), Atoms("He"), bulk("Si") * (2, 1, 1)]
    together = predict(model, *structures)
    alone = torch.cat([predict(model, atoms) for atoms in structures])
    torch.testing.assert_close(together, alone, rtol=1e-9, atol=1e-12)
    assert together.std(0).min() > 1e-3  # they differ


@every_variant
@pytest.mark.parametrize("change", ["shifted", "wrapped", "reordered"])
def test_ways_to_write_a_crystal_that_any_network_must_ignore(variant, change):
    model = small(variant)
    for atoms in CRYSTALS.values():
        torch.testing.assert_close(
            predict(model, rewritten(atoms)[change]), predict(model, atoms), rtol=1e-8, atol=1e-9
        )


@every_variant
def test_gradients_reach_every_parameter(variant):
    model = small(variant).train()
    model(batch()).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name


@every_variant
def test_gradients_are_those_of_finite_differences(variant):
    model = small(variant)
    parameters = [p for p in model.parameters() if p.requires_grad]
    generator = torch.Generator().manual_seed(3)
    steps = [torch.randn(p.shape, dtype=p.dtype, generator=generator) for p in parameters]
    slope = sum(
        (g * s).sum() for g, s in zip(torch.autograd.grad(model(batch()).sum(), parameters), steps, strict=True)
    )

    def at(t):
        with torch.no_grad():
            for p, s in zip(parameters, steps, strict=True):
                p.add_(s, alpha=t)
            value = model(batch()).sum()
            for p, s in zip(parameters, steps, strict=True):
                p.add_(s, alpha=-t)
        return value

    h = 1e-5
    torch.testing.assert_close((at(h) - at(-h)) / (2 * h), slope, rtol=1e-6, atol=1e-7)


@every_variant
def test_weights_survive_a_file(variant, tmp_path):
    from safetensors.torch import load_file, save_file

    model = small(variant)
    model.scaling.fit(torch.randn(5, 2), composition(batch()))
    save_file(model.state_dict(), tmp_path / "weights.safetensors")
    name, options = model_name(model), json.loads(json.dumps(dataclasses.asdict(model.config)))
    again = build_model(name, options).double().eval()
    assert again.config == model.config
    again.load_state_dict(load_file(tmp_path / "weights.safetensors"), strict=True)
    torch.testing.assert_close(again(batch()), model(batch()), rtol=0, atol=0)


@every_variant
def test_single_precision(variant):
    model = small(variant)
    wanted = model(batch())
    single = model.float()(batch(torch.float32))
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), wanted, rtol=2e-3, atol=2e-3)


@every_variant
def test_one_atom_can_be_trained_on(variant):
    model = small(variant).train()
    value = model(batch_structures(bulk("Cu")))
    value.sum().backward()
    assert torch.isfinite(value).all()


@pytest.mark.parametrize("name", SMALL)
def test_without_complete_potentials_far_atoms_do_not_matter(name):
    near = Atoms("NaClNaCl", positions=[[0, 0, 0], [2.5, 0, 0], [0, 2.5, 0], [0, 0, 2.5]])
    far = near.copy()
    near.positions[3] = [0, 0, 40.0]
    far.positions[3] = [0, 0, 55.0]
    options = SMALL[name] | ({"n_nearest": 2} if name == "potnet" else {})
    change = {}
    for euclidean in (True, False):
        torch.manual_seed(0)
        model = ready(build_model(name, options | {"euclidean": euclidean}))
        change[euclidean] = float((predict(model, near) - predict(model, far)).abs().max())
    # an atom alone has only distant neighbours for the published form, none for the invariant one
    assert change[False] > 1e-6
    if name == "invariant-potnet":
        assert change[True] < 1e-12


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("potnet", {"infinite_channel": "none"}, "infinite_channel must be"),
        ("potnet", {"coefficients": [1.0]}, "coefficients must be as many as potentials"),
        ("potnet", {"potentials": ["coulomb", "london", "gravity"]}, "no potential 'gravity'"),
        ("potnet", {"potentials": ["coulomb", "london", "pauli(-3)"]}, "'pauli\\(-3\\)'"),
        ("potnet", {"n_heads": 3}, "n_heads must divide"),
        ("potnet", {"width": 0}, "width must be positive"),
        ("invariant-potnet", {"scales": [1.0]}, "scales must be as many as potentials"),
        ("invariant-potnet", {"cutoff": -1.0}, "cutoff must be positive"),
    ],
)
def test_bad_options(name, options, message):
    with pytest.raises(ValueError, match=message):
        build_model(name, options)


def test_other_potentials():
    for name in SMALL:
        more = {"potentials": ["coulomb", "inverse_power(12)", "screened_coulomb(0.7)"]}
        model = ready(build_model(name, SMALL[name] | more))
        assert torch.isfinite(predict(model, *CRYSTALS.values())).all()


def test_predictions_differ_between_crystals_of_one_composition():
    cells = [bulk("Fe", "bcc", a=2.87), bulk("Fe", "fcc", a=3.65), bulk("Fe", "hcp", a=2.5, c=4.1)]
    for variant in VARIANTS:
        values = predict(small(variant), *cells)[:, 0].numpy()
        assert np.ptp(values) > 1e-4, variant


@every_variant
def test_mixed_precision_rounds_features_not_geometry(variant):
    """bfloat16 has three digits: errors of sums over images or of distances in it would be of order one."""
    model, atoms = small(variant).float(), batch(torch.float32)
    wanted = model(atoms)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = model(atoms)
        loss = found.square().mean()
    loss.backward()
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, wanted, rtol=0, atol=0.03 * float(wanted.detach().std()))
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in model.parameters())


def test_options_of_the_wrong_kind_are_named() -> None:
    with pytest.raises(ValueError, match=r"options: width of potnet must be of the kind of \d+, got 'wide'"):
        build_model("potnet", {"width": "wide"})
