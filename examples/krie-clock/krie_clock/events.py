"""The event types of clock: the sample's one, to be replaced."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from krie import S64, Choice, Doc, Event, Inline, Pad4

WHAT = {1: "time", 2: "zone", 3: "both"}
"""Bits; in C `CLOCK_SETTIME_WHAT_TIME` and so on, which KRIe makes of this."""


@dataclass(frozen=True, slots=True)
class SetTime(Event):
    """Somebody sets the machine's clock, or tells the kernel another time zone."""

    KIND: ClassVar[int] = 0xBB8C
    """Yours for good: from 0x8000 on, and no other plugin's on the same machine."""
    NAME: ClassVar[str] = "clock.settime"

    seconds: Annotated[S64, Doc("the new time, s since 1970; 0 where only the zone is set")]
    what: Annotated[str, Choice("I", WHAT), Inline(), Doc("what is set")]
    pad: Pad4 = b""
