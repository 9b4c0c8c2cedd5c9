"""`krie plugin new`: writes a third party's plugin, which works as it is, to be changed into another one."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
import tempfile
from collections.abc import Iterator
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path, PurePosixPath
from zlib import crc32

import click

from ..errors import ConfigError
from ..events.event import RESERVED_KINDS
from ..output import say_text
from ..plugin.contract import OF_THE_CORE
from ..plugin.installed import available
from .command import PATH

plugin = click.Group("plugin")
_NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
_MOST_LETTERS = 32
_SUFFIX = ".template"
_REGO = frozenset("as contains default else every false if import in not null package some true with".split())
"""Words that cannot be part of `package krie.<name>`."""


@plugin.command()
@click.argument("name")
@click.option("--into", type=PATH, default=".", metavar="FOLDER", help="Where the package's own folder is made.")
def new(name: str, into: Path) -> None:
    """Write the package of a plugin that works: C, event, rule and tests of a sample, about who sets the clock.

    NAME is the plugin's, such as usb_door: lower case, digits, underscores.
    """
    folder = new_plugin(name, into)
    python = shlex.quote(sys.executable)
    say_text(
        f"{folder} is a plugin that works. What it does is a sample, to be replaced: it refuses to set the clock.\n"
        "Keep it where only root can write: from a folder that others could change, or below /tmp, it is not loaded.\n"
        "The first command needs setuptools, the third pytest, the last one virtme-ng (the extra `lab`), QEMU and\n"
        "`krie lab fetch debian-6.12`. Next:\n\n"
        f"  cd {shlex.quote(str(folder))}\n"
        f"  {python} -m pip install --no-deps --no-build-isolation -e .    # where KRIe is\n"
        "  krie plugins --config krie.toml    # it is there, and observes\n"
        f"  {python} -m pytest    # as root: rules, C, and an agent on this kernel\n"
        f"  krie lab run --kernel debian-6.12 -- {python} -m pytest    # refused, in a guest\n\n"
        f"Then make krie_{name}/ yours: __init__.py, events.py, {name}.bpf.c, plugin.py, policy/. The contract:\n\n"
        f"  {python} -m pydoc krie.plugin.hookspecs"
    )


def new_plugin(name: str, into: Path) -> Path:
    """Write the package and return its folder. Raises `ConfigError` for a name that cannot be, or that is taken."""
    if problem := _problem(name):
        raise ConfigError(f"plugin new {name}", problem)
    project = f"krie-{name.replace('_', '-')}"
    folder = into / project
    if folder.exists() or folder.is_symlink():
        raise ConfigError(str(folder), "exists already; nothing was written: choose another name, or --into elsewhere")
    if not into.is_dir():
        raise ConfigError(str(into), "there is no such folder; make it first")
    values = {
        "name": name,
        "NAME": name.upper(),
        "kind": f"{RESERVED_KINDS.stop + crc32(name.encode()) % (0xFFFF - RESERVED_KINDS.stop):#06X}".replace("X", "x"),
        "project": project,
    }
    try:
        with tempfile.TemporaryDirectory(prefix=f".{project}-", dir=into) as made:
            for place, text in _templates(files("krie.template"), PurePosixPath()):
                _write(Path(made) / _filled(str(place), values), _filled(text, values))
            Path(made).chmod(0o755)
            shutil.copytree(made, folder)
    except OSError as error:
        raise ConfigError(str(into), f"the plugin cannot be written there: {error.strerror}") from error
    return folder


def _problem(name: str) -> str:
    if not _NAME.fullmatch(name) or len(name) > _MOST_LETTERS:
        return f"a plugin's name is of lower-case letters, digits and single underscores, up to {_MOST_LETTERS}"
    if name in _REGO or name in OF_THE_CORE:
        return "the name is a word of Rego's, or of the core's own; choose another one"
    if (taken := available().get(name)) is not None:
        owner = taken.dist.name if taken.dist is not None else taken.value
        return f"a plugin of this name is installed already ({owner}); choose another one"
    return ""


def _templates(folder: Traversable, place: PurePosixPath) -> Iterator[tuple[PurePosixPath, str]]:
    for each in folder.iterdir():
        if not each.name.endswith(_SUFFIX):
            continue
        there = place / each.name.removesuffix(_SUFFIX)
        if each.is_dir():
            yield from _templates(each, there)
        else:
            yield there, each.read_text(encoding="utf-8")


def _filled(text: str, values: dict[str, str]) -> str:
    return re.sub(r"@(\w+)@", lambda found: values[found[1]], text)


def _write(path: Path, text: str) -> None:
    """Whatever the umask: a plugin that others could change is not imported."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.parent.chmod(0o755)
    path.write_text(text, encoding="utf-8")
    path.chmod(0o644)
