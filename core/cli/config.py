"""`krie config`: writes the sample configuration, and checks one without starting anything."""

from __future__ import annotations

import os
import sys
from importlib import resources
from pathlib import Path

import click

from ..errors import ConfigError, ExitCode
from ..output import say
from .command import PATH, SYSTEM, config_file, config_option

config = click.Group("config")


@config.command("init")
@click.option(
    "--output", type=PATH, metavar="FILE", default=SYSTEM, show_default=True, help="The file that is written."
)
def init(output: Path) -> None:
    """Write the sample configuration, which only observes and explains each key. An existing file is left as it is."""
    sample = resources.files("krie").joinpath("sample.toml").read_bytes()
    try:
        output.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        with open(output, "xb") as file:
            os.fchmod(file.fileno(), 0o644)  # whatever the umask: others may not write to it
            file.write(sample)
    except FileExistsError as error:
        raise ConfigError(str(output), "exists already; --output names another file") from error
    except OSError as error:
        raise ConfigError(str(output), f"cannot be written: {error.strerror}") from error
    say(f"{output}: written; `krie config check` checks it after you changed it")


@config.command("check")
@config_option
def check(config: Path | None) -> None:
    """Check the configuration: its keys and values, its plugins, and who could change the file. Needs no root.

    Policies are checked by krie policy check, and what this kernel offers by krie doctor.
    """
    from ..config import load_config  # noqa: PLC0415 - which imports pydantic
    from ..plugin.offline import load_plugins  # noqa: PLC0415

    path = config_file(config)
    loaded, faults = load_plugins(load_config(path), str(path))
    modes = ", ".join(f"{name} {mode}s" for name, mode in loaded.modes.items())
    say(f"{path}: {'these plugins do not work' if faults else 'valid'}; {modes or 'it names no plugin'}")
    sys.exit(ExitCode.DEGRADED if faults else ExitCode.OK)
