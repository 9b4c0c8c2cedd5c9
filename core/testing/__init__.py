"""Test kit for KRIe and for plugin authors: event builders, a check of BPF C, an agent in a subprocess."""
