"""System calls in which a thread acts by its own credentials wherever these are looked at: see cred_acting.bpf.c.

By their numbers on x86-64. Left out are those in which the kernel may work in somebody else's name by then:
io_uring_enter (as whoever the ring's user registered), those that load firmware or mount, write and truncate
(cachefiles).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

_WORDS = 8
_BITS = 64

NAMES = {
    "rename": 82, "mkdir": 83, "rmdir": 84, "link": 86, "unlink": 87, "symlink": 88, "chmod": 90, "fchmod": 91,
    "chown": 92, "fchown": 93, "lchown": 94, "utime": 132, "mknod": 133, "setxattr": 188, "lsetxattr": 189,
    "fsetxattr": 190, "removexattr": 197, "lremovexattr": 198, "fremovexattr": 199, "utimes": 235, "mkdirat": 258,
    "mknodat": 259, "fchownat": 260, "futimesat": 261, "unlinkat": 263, "renameat": 264, "linkat": 265,
    "symlinkat": 266, "fchmodat": 268, "utimensat": 280, "renameat2": 316, "fchmodat2": 452, "setxattrat": 463,
    "removexattrat": 466,
}  # fmt: skip
"""Change names, modes, owners and attributes of files."""


def defines() -> Mapping[str, int]:
    """The sets as bits, for C."""
    sets = {"NAMES": NAMES}
    return {
        f"RUNTIME_INTEGRITY_CALLS_{name}_{word}": _bits(calls.values(), word)
        for name, calls in sets.items()
        for word in range(_WORDS)
    }


def _bits(calls: Iterable[int], word: int) -> int:
    return sum(1 << each % _BITS for each in calls if each // _BITS == word)
