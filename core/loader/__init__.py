"""Compiles, loads and attaches BPF programs, in a child of the agent. BCC is imported below here only."""
