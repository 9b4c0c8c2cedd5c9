"""What the courier's threads have in common: how they tell the agent something, and what they hear from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ..events.wire import Json

Message = dict[str, Json]
"""A line of JSON between courier and agent."""
Tell = Callable[[Mapping[str, Json]], None]
"""Sends one to the agent."""
