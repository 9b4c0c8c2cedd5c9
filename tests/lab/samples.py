"""The kernel's own samples of live patches, ftrace and kprobes, which benign workloads load: from Debian's source."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from krie.errors import LabError
from krie.testing.lab.archive import archive_of
from krie.testing.lab.cache import Cache
from krie.testing.lab.kernels import Kernel
from krie.testing.lab.modules import build_modules

_SAMPLES = (
    "livepatch/livepatch-sample.c",
    "ftrace/ftrace-direct.c",
    "kprobes/kprobe_example.c",
    "kprobes/kretprobe_example.c",
)


def build_samples(kernel: Kernel, cache: Cache, say: Callable[[str], None]) -> Path:
    """The folder with the samples' modules for this kernel. Raises `LabError`."""
    version = ".".join(kernel.release.split(".")[:2])
    return build_modules(kernel, _sources(f"linux-source-{version}", cache, say), cache, say)


def _sources(package: str, cache: Cache, say: Callable[[str], None]) -> Path:
    """A folder with the samples' C files and a Makefile for them."""
    name = f"samples-{package}"
    with cache.locked(name):
        if not cache.folder(name).exists():
            say(f"{package}: downloading (some 150 MB) for its samples")
            archive = archive_of(cache)
            with cache.making(name) as folder:
                archive.unpack([package], folder)
                packed = folder / f"usr/src/{package}.tar.xz"
                members = [f"{package}/samples/{each}" for each in _SAMPLES]
                command = ["tar", "-C", str(folder), "-xJf", str(packed), "--occurrence=1", *members]
                done = subprocess.run(command, capture_output=True, text=True, check=False)
                if done.returncode:
                    raise LabError(f"{package} has not the samples that are wanted: {done.stderr.strip()}")
                for each in members:
                    shutil.move(folder / each, folder)
                for unwanted in ("usr", package):
                    shutil.rmtree(folder / unwanted)
                objects = " ".join(f"{Path(each).stem}.o" for each in _SAMPLES)
                (folder / "Makefile").write_text(f"obj-m := {objects}\n")
    return cache.folder(name)
