"""Debian's compiler and what else builds kernels and modules, in a folder of its own."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...errors import LabError
from .archive import archive_of
from .cache import Cache
from .programs import require

SUITE = "trixie"
"""Its compiler is the newest that any kernel of the lab asks for; older kernels and their modules build with it too."""
PACKAGES = tuple(
    "bash bc bison coreutils cpio dash diffutils findutils flex gcc grep gzip libc6-dev libelf-dev libssl-dev make "
    "mawk pahole perl-base python3 rsync sed tar xz-utils".split()
)
WORK = "/mnt"
"""Where the folder that is worked in appears."""
_NAME = "toolchain"
_MANIFEST = "toolchain.json"
_LOG_LINES = 8


@dataclass(frozen=True, slots=True)
class Toolchain:
    """Runs programs that see it as their root, without a network."""

    root: Path

    def run(self, command: Sequence[str], work: Path, folders: Sequence[Path] = ()) -> str:
        """Run a command in `work`, which is all that it can write, and which it sees as `WORK`.

        Of `folders`, all that they hold in usr/src and usr/lib appears under /usr too. Returns the output. Raises
        `LabError` with the end of it where the command fails.
        """
        sandbox = ["bwrap", "--ro-bind", str(self.root), "/", "--dev", "/dev", "--proc", "/proc"]
        sandbox += ["--tmpfs", "/tmp"]  # noqa: S108 - of its own
        for folder in folders:
            for each in (*folder.glob("usr/src/*"), *folder.glob("usr/lib/linux-kbuild-*")):
                inside = each.relative_to(folder)
                (self.root / inside).mkdir(parents=True, exist_ok=True)  # a place to mount it at
                sandbox += ["--ro-bind", str(each), f"/{inside}"]
        sandbox += ["--bind", str(work), WORK, "--chdir", WORK, "--unshare-net", "--die-with-parent", "--clearenv"]
        sandbox += ["--setenv", "PATH", "/usr/bin:/usr/sbin", "--setenv", "LC_ALL", "C.UTF-8", "--"]
        done = subprocess.run(
            [*sandbox, *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
        )
        if done.returncode:
            last = "\n".join(done.stdout.splitlines()[-_LOG_LINES:])
            raise LabError(f"{' '.join(command[:4])} failed with status {done.returncode}:\n{last}")
        return done.stdout


def toolchain(cache: Cache, say: Callable[[str], None]) -> Toolchain:
    """Have it in the cache; `say` gets what takes time. Raises `LabError`."""
    require({"bwrap": "bubblewrap"})
    root = cache.folder(_NAME)
    wanted = json.dumps([SUITE, *PACKAGES])
    with cache.locked(_NAME):
        manifest = root / _MANIFEST
        if not (manifest.exists() and manifest.read_text() == wanted):
            say("toolchain: downloading Debian's compiler (some 90 MB, once)")
            archive = archive_of(cache)
            with cache.making(_NAME) as folder:
                archive.unpack_system(PACKAGES, SUITE, folder)
                (folder / "usr/bin/awk").symlink_to("mawk")  # what dpkg's alternatives would do
                for place in (WORK, "dev", "proc", "tmp"):
                    (folder / place.lstrip("/")).mkdir(exist_ok=True)
                (folder / _MANIFEST).write_text(wanted)
    return Toolchain(root)
