"""`krie cfi`: who may call the locked functions."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import click
from krie.cli.command import PATH, config_file_if_any, config_option, json_option, need_root
from krie.output import complain, say, say_json, say_text

from . import explanation, learning, lock_file
from .boot_image import kernel_in
from .declaration import Declaration, shipped
from .derivation import Code
from .live import BOUNDS, Kcore, code_of, layout, locate, running_build_id
from .lock_file import LockFile, lock_file_of

cfi = click.Group("cfi")
_vmlinux = click.option("--vmlinux", type=PATH, metavar="FILE", help="A kernel: vmlinux, or a bootable vmlinuz.")
_kernel = click.option("--kernel", default="", metavar="NAME", help="One of the lab's: see krie lab kernels.")


@cfi.command()
@_vmlinux
@_kernel
@click.option("--output", type=PATH, metavar="FOLDER", help="Write FOLDER/BUILD-ID.json instead of printing it.")
def derive(vmlinux: Path | None, kernel: str, output: Path | None) -> None:
    """Make a lock file: of the running kernel (as root), of a lab's, or of a file.

    Callers are the direct calls in the kernel's own code, with tail calls followed.
    """
    made = _derived(vmlinux, kernel, shipped())
    if output is None:
        say_text(made.to_json().rstrip("\n"))
        return
    place = output / f"{made.build_id}.json"
    place.write_text(made.to_json())
    say(f"{place}: {made.release}")


@cfi.command()
@click.argument("journals", type=PATH, nargs=-1, required=True, metavar="JOURNAL...")
@_vmlinux
@_kernel
@click.option("--output", type=PATH, metavar="FOLDER", help="Write FOLDER/BUILD-ID.json instead of printing it.")
def learn(journals: tuple[Path, ...], vmlinux: Path | None, kernel: str, output: Path | None) -> None:
    """Add callers by a pointer to a lock file: those that journals have, written on this kernel under ordinary work.

    Learns only places behind a call by a pointer in the kernel's own code, for functions whose address is taken;
    all others are named, and not believed. What FOLDER/BUILD-ID.json had learnt before is kept.
    """
    seen = learning.seen_in(journals)
    made, code = _derived_with_code(vmlinux, kernel, shipped())
    place = output / f"{made.build_id}.json" if output is not None else None
    before = lock_file.read(place) if place is not None and place.exists() else lock_file.shipped(made.build_id)
    if before is not None:
        kept = {name: dict.fromkeys(each.open, "kernel") for name, each in before.functions.items()}
        made = learning.learn(made, code, kept).lock
    learnt = learning.learn(made, code, seen)
    for each in learnt.refused:
        complain(each, by="krie cfi")
    if place is None:
        say_text(learnt.lock.to_json().rstrip("\n"))
        return
    place.write_text(learnt.lock.to_json())
    say(f"{place}: {learnt.lock.release}", *(f"+ {each}" for each in learnt.added))


@cfi.command()
@click.argument("old", type=PATH)
@click.argument("new", type=PATH)
@json_option
def diff(old: Path, new: Path, as_json: bool) -> None:
    """Show how two lock files differ. Offsets change with every build: names are what to review."""
    lines = lock_file.differences(lock_file.read(old), lock_file.read(new))
    if as_json:
        say_json(lines)
    else:
        say(*(lines or ["no difference"]))


@cfi.command()
@click.argument("function")
@_vmlinux
@_kernel
@config_option
@json_option
def explain(function: str, vmlinux: Path | None, kernel: str, config: Path | None, as_json: bool) -> None:
    """Show who may call a function, why it is locked, and what a call from elsewhere gets.

    FUNCTION may be any function of the kernel, or one of the acts that locked.toml declares, such as device_node. Of
    the running kernel the shipped lock file is shown, if there is one. What `functions` in [plugins.cfi] of the
    configuration locks counts as locked.
    """
    declared = shipped().with_functions(_configured(config))
    if function in declared.acts:
        act = explanation.of_act(function, declared, _decide())
        if as_json:
            say_json(act)
        else:
            say(*explanation.act_in_words(act))
        return
    wanted = declared.with_functions([function])
    known = None if vmlinux is not None or kernel else lock_file.shipped(running_build_id())
    lock = known if known is not None and function in known.functions else _derived(vmlinux, kernel, wanted)
    if function not in lock.functions:
        raise click.ClickException(f"{lock.release or lock.build_id} has no function {function}, or has several")
    answer = explanation.of_function(function, lock, declared, _decide())
    if as_json:
        say_json(answer)
    else:
        say(*explanation.function_in_words(answer, lock.functions[function], declared))


def _configured(config: Path | None) -> Sequence[str]:
    """The functions that the administrator locks. Raises `ConfigError`, `UntrustedFileError`."""
    from krie.config import load_config, plugin_config  # noqa: PLC0415 - which import all models

    from .plugin import CfiConfig  # noqa: PLC0415 - likewise

    if (place := config_file_if_any(config)) is None:
        return ()
    keys = load_config(place).plugins.get("cfi", {})
    return plugin_config("cfi", keys, CfiConfig, str(place)).functions


def _decide() -> explanation.Decide:
    from krie.testing.events import build  # noqa: PLC0415 - the engine takes a tenth of a second to import
    from krie.testing.rules import Rules  # noqa: PLC0415

    rules = Rules("cfi")
    return lambda event, fields: rules.decide(build(event, **fields))


def _derived(vmlinux: Path | None, kernel: str, declared: Declaration) -> LockFile:
    return _derived_with_code(vmlinux, kernel, declared)[0]


def _derived_with_code(vmlinux: Path | None, kernel: str, declared: Declaration) -> tuple[LockFile, Code]:
    if vmlinux is not None and kernel:
        raise click.UsageError("give exactly one of --vmlinux FILE or --kernel NAME")
    if vmlinux is not None or kernel:
        found = kernel_in(vmlinux or _lab_image(kernel))
        callers = found.code.callers(declared.functions, declared.jumps())
        return lock_file_of(found.release, found.build_id, found.code, callers), found.code
    need_root()
    kcore = Kcore()
    try:
        code = code_of(kcore.read, layout(locate(BOUNDS)))
    finally:
        kcore.close()
    callers = code.callers(declared.functions, declared.jumps())
    return lock_file_of(os.uname().release, running_build_id(), code, callers), code


def _lab_image(kernel: str) -> Path:
    from krie.testing.lab.cache import Cache  # noqa: PLC0415 - only here anything of the lab is needed
    from krie.testing.lab.kernels import find  # noqa: PLC0415

    return find(kernel, Cache(), partial(complain, by="krie cfi")).image
