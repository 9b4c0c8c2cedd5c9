"""What loading found out and nothing changes any more: on which kernel, with programs from where, in what time."""

from __future__ import annotations

from dataclasses import dataclass

from ..kernel.features import Features
from ..loader.origin import Origin
from ..timings import Timings


@dataclass(frozen=True, slots=True)
class LoadFacts:
    """For whoever tells how the agent started."""

    features: Features
    programs: Origin
    """Where the programs come from."""
    programs_problem: str
    """Why a folder of compiled programs was of no use; empty where all is well."""
    timings: Timings
    """Of this process, since it was started, and of the loader. Whoever goes on with the start goes on with them."""
