"""Test kit for KRIe and for plugin authors: docs/tutorial/first-plugin.md shows its use.

Event builders, rules and maps without a kernel, a check of BPF C, an agent in a subprocess with fixtures for pytest,
and the kernel lab.
"""
