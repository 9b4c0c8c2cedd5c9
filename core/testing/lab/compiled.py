"""Compiles here, at native speed, what agents in a guest will ask for: they get the folder as `agent.compiled_dir`."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ...agent.compiling import Entry, compile_into_folder, sources_of
from ...errors import LabError
from ...kernel.image import types_of
from ...loader.source import assemble
from ...plugin.probe import Sensor
from .kernels import Kernel

_COMMAND = "import sys; sys.path[:0] = {folders!r}; from krie.cli.main import main; main()"


@dataclass(frozen=True, slots=True)
class Configuration:
    """What decides what an agent asks for."""

    plugins: tuple[str, ...]
    plugin_folders: tuple[Path, ...] = ()
    """Where plugins that are not installed lie with their metadata."""


def compile_for(kernel: Kernel, configurations: Iterable[Configuration], folder: Path) -> None:
    """Have everything in the folder that agents with these plugins, and `krie policy verify`, ask for on this kernel.

    Quick where it is there already. A process for each, since plugins of several folders may have one name. Raises
    `LabError` with what the command said.
    """
    for each in dict.fromkeys(configurations):
        with tempfile.TemporaryDirectory() as made:  # of its own: a file in /tmp itself is not trusted
            config = Path(made) / "krie.toml"
            config.write_text("".join(f"[plugins.{name}]\n" for name in each.plugins))
            config.chmod(0o600)
            code = _COMMAND.format(folders=[str(place) for place in each.plugin_folders])
            options = ["--vmlinux", str(kernel.image), "--config", str(config), "--output", str(folder)]
            done = subprocess.run(
                [sys.executable, "-c", code, "compile", *options], capture_output=True, text=True, check=False
            )
        if done.returncode:
            raise LabError(
                f"compiling {', '.join(each.plugins) or 'the core'} for {kernel.name}: {done.stderr.strip()}"
            )


def compile_sensors(
    kernel: Kernel, sets: Iterable[tuple[Sensor, ...]], folder: Path, *, trial: bool = False
) -> Iterator[Entry]:
    """The same for sets of sensors that are loaded without an agent; `trial`: by `Trial`. Raises `KrieError`."""
    types = types_of(kernel.image)
    units = {str(number): assemble(sources_of(each), types, trial=trial) for number, each in enumerate(sets)}
    return compile_into_folder(units, types, folder)
