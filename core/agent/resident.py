"""What a process holds in memory, and of what: /proc/PID/smaps, put together."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ..kernel_files import KernelFile

RING: Final = "ring and other maps"
ANONYMOUS: Final = "anonymous"
_MAPPING = re.compile(r"^[0-9a-f]+-[0-9a-f]+ \S+ \S+ \S+ \S+ *(?P<name>.*)$")
_BPF_MAP = "anon_inode:bpf-map"


@dataclass(frozen=True, slots=True)
class Resident:
    """Sizes are KiB. `Pss` counts a page that several processes share as a part of one for each of them."""

    pss: Mapping[str, int]
    """By part: `RING`, `ANONYMOUS`, and files by their names; the largest first."""
    rss_anonymous: int
    """All that no file has, also of the pages of files that this process has changed: RssAnon."""

    @property
    def total(self) -> int:
        """The proportional set size (Pss) of all mappings together."""
        return sum(self.pss.values())

    @property
    def without_ring(self) -> int:
        """Pss of all but the maps of BPF, whose size is a matter of configuration."""
        return self.total - self.pss.get(RING, 0)

    def to_json(self) -> dict[str, Any]:
        """The report as `--json` prints it."""
        return {
            "pss_kib": self.total,
            "pss_without_ring_kib": self.without_ring,
            "rss_anonymous_kib": self.rss_anonymous,
            "pss_by_part_kib": dict(self.pss),
        }


def parse(smaps: Iterable[str]) -> Resident:
    """Put the lines of a smaps file together."""
    pss: Counter[str] = Counter()
    part, anonymous = "", 0
    for line in smaps:
        if (mapping := _MAPPING.match(line)) is not None:
            part = _part(mapping["name"])
        elif line.startswith("Pss:"):
            pss[part] += int(line.split()[1])
        elif line.startswith("Anonymous:"):
            anonymous += int(line.split()[1])
    return Resident({name: size for name, size in pss.most_common() if size}, anonymous)


def resident(tgid: int) -> Resident:
    """What a process holds now. Raises `OSError` where it has gone, or may not be looked at."""
    with KernelFile(f"/proc/{tgid}/smaps").open() as lines:
        return parse(each.decode(errors="replace") for each in lines)


def _part(name: str) -> str:
    if not name or name.startswith("["):
        return ANONYMOUS
    return RING if name == _BPF_MAP else Path(name).name
