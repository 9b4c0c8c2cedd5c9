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
    "mkdir": 83, "rmdir": 84, "symlink": 88, "mknod": 133, "setxattr": 188, "lsetxattr": 189, "fsetxattr": 190,
    "removexattr": 197, "lremovexattr": 198, "fremovexattr": 199, "mkdirat": 258, "mknodat": 259, "symlinkat": 266,
    "setxattrat": 463, "removexattrat": 466,
}  # fmt: skip
"""Change names and attributes of files.

Not those of a file whose content may wait to be written (rename, link, unlink; modes, owners, times): a client of NFS
whose server is this very machine writes it then, and opens the server's file in the server's name (LOCALIO, 6.12).
"""


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
