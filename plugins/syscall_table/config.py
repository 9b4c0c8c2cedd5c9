"""Keys of `[plugins.syscall_table]`."""

from __future__ import annotations

from typing import Annotated

from krie import PluginConfig
from pydantic import Field, StringConstraints

MOST_WRAPPED = 16
"""Handlers whose callers can be checked: each is a kprobe."""
_Symbol = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_.]*$", max_length=63)]
_Call = Annotated[str, StringConstraints(pattern=r"^[a-z_][a-z0-9_]*$", max_length=40)]


class SyscallTableConfig(PluginConfig):
    """What a user can set."""

    alias_mappings: bool = Field(
        True, description="also look when a mapping of kernel memory is removed; some drivers do so very often"
    )
    code: bool = Field(
        True,
        description="compare all of the kernel's code and read-only data at each scan, by another process of 60 MB",
    )
    wrapped: Annotated[tuple[_Call, ...], Field(max_length=MOST_WRAPPED)] = Field(
        ("kill", "getdents", "getdents64"),
        description="system calls whose handlers nobody but the kernel's own dispatch may call; two kprobes for each",
    )
    shipped_pointers: bool = Field(True, description="watch the tables of functions that KRIe knows of")
    pointers: tuple[_Symbol, ...] = Field(
        (), description="further variables of the kernel whose pointers to its functions are watched"
    )
