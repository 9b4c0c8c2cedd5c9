"""Where an agent's programs come from."""

from __future__ import annotations

from enum import StrEnum


class Origin(StrEnum):
    """Where the programs come from."""

    COMPILED_DIR = "compiled_dir"
    """Compiled elsewhere: `agent.compiled_dir`."""
    CACHE = "cache"
    """Compiled here for an earlier start: `agent.cache_dir`."""
    COMPILED = "compiled"
    """Compiled here and now."""

    @property
    def text(self) -> str:
        """Where the unit came from, in words."""
        return {
            Origin.COMPILED_DIR: "taken from agent.compiled_dir",
            Origin.CACHE: "taken from agent.cache_dir",
            Origin.COMPILED: "compiled here",
        }[self]
