"""Trained models: the format of a model folder, and the models that come with the package."""

from ase_potnet.pretrained.format import ModelInfo, Target, load_model, model_info, save_model
from ase_potnet.pretrained.packaged import list_models

__all__ = ["ModelInfo", "Target", "list_models", "load_model", "model_info", "save_model"]
