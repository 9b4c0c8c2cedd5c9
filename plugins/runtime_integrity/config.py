"""Keys of `[plugins.runtime_integrity]`."""

from __future__ import annotations

from krie import PluginConfig
from pydantic import Field

from .parameters import Parameter


class RuntimeIntegrityConfig(PluginConfig):
    """What a user can set."""

    map_access: bool = Field(
        False, description="also report bpf() calls that read or write map elements; they are many"
    )
    watch_credentials: bool = Field(
        True, description="compare threads' credentials with what they were given; the kernel must allow fentry"
    )
    shipped_parameters: bool = Field(True, description="watch the kernel's variables that KRIe knows of")
    parameters: tuple[Parameter, ...] = Field(
        (), description="further variables to watch, or other expectations of those; see `krie.toml`"
    )
