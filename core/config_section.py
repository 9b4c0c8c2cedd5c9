"""What all sections of krie.toml have in common."""

from __future__ import annotations

import os

os.environ["PYDANTIC_DISABLE_PLUGINS"] = "__all__"
"""Else pydantic imports what any installed package announces to it, with the first model: here that runs as root."""

from pydantic import BaseModel, ConfigDict  # noqa: E402


class Section(BaseModel):
    """A table: no key that is not known, and nothing that is only like a number."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
