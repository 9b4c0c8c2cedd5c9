"""What commands share: their options, and which configuration they use."""

from __future__ import annotations

import os
from pathlib import Path

import click

from ..errors import ConfigError, KernelError
from ..output import complain

HERE, SYSTEM = Path("krie.toml"), Path("/etc/krie/krie.toml")
"""Where the configuration is looked for, in this order."""
PATH = click.Path(path_type=Path)
config_option = click.option(
    "--config",
    "-c",
    type=PATH,
    metavar="FILE",
    envvar="KRIE_CONFIG",
    help=f"The configuration; by default {HERE} in this folder or, where there is none, {SYSTEM}.",
    show_envvar=True,
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for machines.")


def config_file(given: Path | None) -> Path:
    """The configuration's file, for a command that needs one. Raises `ConfigError` where there is none."""
    if (found := _found(given)) is None:
        problem = f"not found, nor is {SYSTEM}; `krie config init` writes that one, --config names another"
        raise ConfigError(str(HERE), problem)
    return found


def config_file_if_any(given: Path | None) -> Path | None:
    """The configuration's file; None, which is said, where none was given and none is where it is looked for."""
    if (found := _found(given)) is None:
        complain(f"neither {HERE} nor {SYSTEM} exists: the default configuration is used")
    return found


def _found(given: Path | None) -> Path | None:
    if given is not None:
        return given
    return next((each for each in (HERE, SYSTEM) if os.path.lexists(each)), None)


def need_root() -> None:
    """Raise `KernelError` for anybody else."""
    if os.geteuid() != 0:
        raise KernelError("attaching BPF programs needs root", 0, "use sudo")
