"""Which KRIe this is: the version of the installed distribution."""

from __future__ import annotations

from importlib import metadata


def version() -> str:
    """Such as `0.1.0`."""
    return metadata.version("krie")
