"""How long tests wait for what must come."""

PATIENCE_S = 300.0
"""Longer than anything takes that works, in a guest that shares a processor with others: only failures take it."""
