"""Fixtures that KRIe offers to all plugin authors."""

pytest_plugins = ("krie.testing.fixtures",)
