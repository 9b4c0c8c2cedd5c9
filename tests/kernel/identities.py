"""What is noted of a process, asked of the process sensor alone: no agent runs."""

import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from krie.events.event import INFLUENCE
from krie.events.identity import Identity
from krie.kernel.inspection import Inspector
from krie.kernel.ring import Ring
from krie.processes.binding import Bindings
from krie.processes.executables import resolve


class Setting:
    """The process sensor alone, with this process as its agent."""

    def __init__(self, bindings: Bindings, inspector: Inspector, influence: str, ring: Ring, folder: Path) -> None:
        self.bindings, self.inspector, self.influence_by, self.ring = bindings, inspector, influence, ring
        self.named = folder / "named"
        shutil.copy("/bin/cat", self.named)
        found = resolve({"named": str(self.named)}, inspector.identify)
        (self.identity,) = found.names
        bindings.look_at([self.identity])

    def influence(self, tgid: int) -> set[str]:
        return words(self.bindings.of(tgid).influence)


def resolved(setting: Setting, path: str | Path) -> Identity:
    """What a file would be known by."""
    found = resolve({"it": str(path)}, setting.inspector.identify)
    found.close()
    return next(iter(found.names))


def words(bits: int) -> set[str]:
    """What these bits of `influence` say."""
    return {word for bit, word in INFLUENCE.items() if bits & bit}


@contextmanager
def running(*command: str | Path, env: Mapping[str, str] | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """A program that has begun: of cat, a line comes back."""
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env or {}) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"1\n")
        process.stdin.flush()
        process.stdout.readline()
        yield process
        process.kill()
