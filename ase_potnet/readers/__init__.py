"""Readers of structure files of all kinds: entries with an id, built one by one."""
