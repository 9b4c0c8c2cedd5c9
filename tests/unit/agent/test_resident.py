"""What a process holds in memory, put together from what the kernel lists."""

from __future__ import annotations

import os
from pathlib import Path

from krie.agent.resident import ANONYMOUS, RING, parse, resident

SMAPS = """\
55dbf3107000-55dbf3109000 r--p 00000000 fe:00 247026                     /usr/lib/libssl.so.3 (deleted)
Size:                  8 kB
Rss:                   8 kB
Pss:                   5 kB
Pss_Dirty:             4 kB
Anonymous:             4 kB
VmFlags: rd mr mw me
55dbf3109000-55dbf310a000 r-xp 00000000 fe:00 247026                     /usr/lib/libssl.so.3 (deleted)
Rss:                  64 kB
Pss:                  10 kB
Anonymous:             0 kB
7f0000000000-7f0000100000 rw-p 00000000 00:00 0                          [heap]
Rss:                 100 kB
Pss:                 100 kB
Anonymous:           100 kB
7f0000200000-7f0000300000 rw-p 00000000 00:00 0
Rss:                  30 kB
Pss:                  30 kB
Anonymous:            30 kB
7f0000300000-7f0000400000 rw-p 00000000 00:00 0                          [anon:arena]
Rss:                   2 kB
Pss:                   2 kB
Anonymous:             2 kB
7f0000400000-7f0002400000 r--s 00001000 00:0e 10                         anon_inode:bpf-map
Rss:               32768 kB
Pss:               32768 kB
Anonymous:             0 kB
7f0000500000-7f0002500000 r--s 00001000 00:0e 10                         anon_inode:[perf_event]
Rss:                   0 kB
Pss:                   0 kB
Anonymous:             0 kB
"""


def test_parts_are_maps_anonymous_memory_and_files_by_name() -> None:
    found = parse(SMAPS.splitlines())
    assert list(found.pss.items()) == [(RING, 32768), (ANONYMOUS, 132), ("libssl.so.3 (deleted)", 15)]
    assert found.rss_anonymous == 136
    assert found.without_ring == 147
    assert found.to_json() == {
        "pss_kib": 32915,
        "pss_without_ring_kib": 147,
        "rss_anonymous_kib": 136,
        "pss_by_part_kib": {RING: 32768, ANONYMOUS: 132, "libssl.so.3 (deleted)": 15},
    }


def test_this_process_is_about_as_large_as_the_kernel_says() -> None:
    found = resident(os.getpid())
    rollup = Path("/proc/self/smaps_rollup").read_text().splitlines()
    says = {line.split(":")[0]: int(line.split()[1]) for line in rollup[1:]}
    assert abs(found.total - says["Pss"]) < 0.2 * says["Pss"]
    assert abs(found.rss_anonymous - says["Anonymous"]) < 0.2 * says["Anonymous"]
