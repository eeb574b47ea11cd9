"""Training: data sources, losses and recipes. Installed as ``ase_potnet.training``."""
