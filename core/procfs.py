"""Other processes' files in /proc, read from a procfs of this process's own that is mounted nowhere.

Whoever may mount can cover /proc/TGID, or a file in it, with what he likes. No mount is in the way below the own one;
where there is none, what is mounted below /proc is refused instead of read. For other files: `krie.kernel_files`.
"""

from __future__ import annotations

import os

from .roots import open_procfs
from .tree import Tree


class Procfs(Tree):
    """A directory that looks like /proc."""

    def tgids(self) -> list[int]:
        """Of all processes."""
        return [int(each) for each in self.names() if each.isdecimal()]

    def has(self, tgid: int) -> bool:
        """Whether there is such a process or thread; also where it cannot be looked at."""
        try:
            os.close(self.open(str(tgid), os.O_PATH))
        except FileNotFoundError:
            return False
        except OSError:
            return True
        return True


_own: list[Procfs] = []


def procfs() -> Procfs:
    """The one of this process, in its PID namespace; opened when it is first asked for. Raises `OSError`."""
    if not _own:
        _own.append(Procfs.own(open_procfs(), "/proc"))
    return _own[0]


def let_go() -> None:
    """Close it until it is asked for again. A child may be in another PID namespace, and closes what it did not
    open."""
    while _own:
        _own.pop().close()


os.register_at_fork(after_in_child=let_go)
