"""The mean of property models."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from ase.build import bulk

from ase_potnet import predict
from ase_potnet.graph import batch_structures
from ase_potnet.models import build_model
from ase_potnet.pretrained import load_model, save_model

MEMBERS = [
    {"model": "equivariant-properties", "options": {"width": 8, "message_width": [4, 2, 2], "n_targets": 2}},
    {"model": "invariant-potnet", "options": {"width": 8, "n_targets": 2}},
]


def test_the_mean_of_the_members_also_from_a_folder(tmp_path: Path) -> None:
    crystals = [bulk("NaCl", "rocksalt", a=5.6), bulk("Cu", "fcc", a=3.6)]
    model = build_model("mean-of-models", {"members": MEMBERS}).double()
    atoms = batch_structures(crystals)
    with torch.no_grad():
        first, second = (member(atoms) for member in model.members)
        together = model(atoms)
    assert not torch.allclose(first, second)
    torch.testing.assert_close(together, (first + second) / 2, rtol=1e-12, atol=1e-12)

    save_model(model, tmp_path / "pair", targets=["a", "b"], task="property")
    with torch.no_grad():
        torch.testing.assert_close(load_model(tmp_path / "pair")(atoms), together, rtol=1e-12, atol=1e-12)
    assert list(predict(crystals, "b", model=tmp_path / "pair")) == pytest.approx(together[:, 1].tolist(), rel=1e-9)


@pytest.mark.parametrize(
    "members", [[], [{"model": "potnet"}], [MEMBERS[0], {"model": "invariant-potnet", "options": {"n_targets": 1}}]]
)
def test_members_that_do_not_fit(members: list[dict[str, object]]) -> None:
    with pytest.raises(ValueError, match=r"^members must"):
        build_model("mean-of-models", {"members": members})
