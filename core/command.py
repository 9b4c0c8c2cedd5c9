"""What commands share: their options, and which configuration they use."""

from __future__ import annotations

import os
from pathlib import Path

import click

from .errors import KernelError
from .output import complain

_DEFAULT_FILE = Path("krie.toml")
PATH = click.Path(path_type=Path)
config_option = click.option(
    "--config",
    "-c",
    type=PATH,
    metavar="FILE",
    envvar="KRIE_CONFIG",
    help=f"The configuration; {_DEFAULT_FILE} in this folder where none is given.",
    show_envvar=True,
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for machines.")


def config_file(given: Path | None) -> Path:
    """The configuration's file, for a command that needs one."""
    return given if given is not None else _DEFAULT_FILE


def config_file_if_any(given: Path | None) -> Path | None:
    """The configuration's file; None, which is said, where none was given and this folder has none."""
    if given is None and not os.path.lexists(_DEFAULT_FILE):
        complain(f"there is no {_DEFAULT_FILE} here: the default configuration is used")
        return None
    return config_file(given)


def need_root() -> None:
    """Raise `KernelError` for anybody else."""
    if os.geteuid() != 0:
        raise KernelError("attaching BPF programs needs root", 0, "use sudo")
