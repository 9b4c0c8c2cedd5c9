"""Decisions by an OPA server, which is not trusted."""
