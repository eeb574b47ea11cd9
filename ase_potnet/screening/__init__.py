"""Screening: tasks on thousands of crystals, in batches, resumable, on one machine or many."""
