"""Data sources: files that users download or have, read into one kind of data set, and splits of it."""

from .dataset import Dataset, Labels, Record, join, labels
from .leaderboard import leaderboard_split
from .opening import KINDS, open_dataset
from .splits import Parts, Split, formula_group, group_split, seeded_split

__all__ = [
    "KINDS",
    "Dataset",
    "Labels",
    "Parts",
    "Record",
    "Split",
    "formula_group",
    "group_split",
    "join",
    "labels",
    "leaderboard_split",
    "open_dataset",
    "seeded_split",
]
