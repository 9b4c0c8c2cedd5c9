"""Policies: Rego files in, one decision an event out."""
