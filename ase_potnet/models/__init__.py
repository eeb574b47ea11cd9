"""Networks on complete sums: PotNet as published, its cell-invariant form, and the equivariant potential."""

from ase_potnet.models.registry import MODEL_NAMES, build_model, model_name, option_names, predicts_properties

__all__ = ["MODEL_NAMES", "build_model", "model_name", "option_names", "predicts_properties"]
