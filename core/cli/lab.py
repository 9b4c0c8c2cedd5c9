"""`krie lab`: the lab on the command line."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from pathlib import Path

import click
from rich.filesize import decimal

from ..errors import ExitCode
from ..output import complain, pass_through, say, say_json
from ..testing.lab import boot, kernels
from ..testing.lab.acceleration import kvm_works
from ..testing.lab.cache import Cache, size_of
from ..testing.lab.modules import build_module
from ..testing.needs import MODULE_VARIABLE
from .command import PATH, json_option
from .render import console, line, table, waiting

TIMED_OUT, LOST, PANICKED = 124, 125, 122
_ENDS = {boot.End.TIMED_OUT: TIMED_OUT, boot.End.LOST: LOST, boot.End.PANICKED: PANICKED}

lab = click.Group("lab")
_kernel = click.option(
    "--kernel",
    "-k",
    metavar="NAME",
    required=True,
    help=f"{', '.join(kernels.NAMES)}, or the path of an image.",
)
_append = click.option("--append", default="", metavar="WORDS", help="Further words for the kernel's command line.")
_cpu = click.option("--cpu", default="", metavar="MODEL", help="QEMU's CPU model, such as max,-smep,-smap.")


@lab.command("kernels")
@json_option
def list_kernels(as_json: bool) -> None:
    """List the kernels that the lab knows by name, and which of them are in the cache."""
    cache = Cache()
    rows = []
    for name in kernels.NAMES:
        kernel = kernels.known(name, cache)
        rows.append((name, kernel.release, size_of(cache.folder(name))) if kernel is not None else (name, "", 0))
    if as_json:
        say_json([{"name": name, "release": release, "bytes": size} for name, release, size in rows])
        return
    cells = [(name, release or "-", decimal(size)) for name, release, size in rows]
    console().print(table("Kernels", ("name", "in the cache", "size"), cells))


@lab.command()
@click.argument("name")
def fetch(name: str) -> None:
    """Fetch the newest kernel of a name, or of `all`, from Debian's archive; quick when the cache has it."""
    with _Progress() as progress:
        for each in kernels.NAMES if name == "all" else (name,):
            kernel = kernels.fetch(each, Cache(), progress.say)
            say(f"{each}: {kernel.release}")


@lab.command(context_settings={"allow_interspersed_args": False})
@click.argument("command", nargs=-1, required=True)
@_kernel
@click.option(
    "--timeout",
    type=click.FloatRange(min=1),
    default=600,
    metavar="S",
    help="Longest time for the command, s.",
    show_default=True,
)
@_append
@_cpu
@click.option(
    "--results",
    type=PATH,
    metavar="FOLDER",
    help="A folder that the guest may write; it finds it in $KRIE_LAB_RESULTS.",
)
@click.option(
    "--module",
    type=PATH,
    metavar="FOLDER",
    help="Folder of a kernel module: built for the kernel, its .ko is $KRIE_LAB_MODULE in the guest.",
)
def run(
    command: Sequence[str],
    kernel: str,
    timeout: float,
    append: str,
    cpu: str,
    results: Path | None,
    module: Path | None,
) -> None:
    """Run a command as root in a guest, in this folder, with the programs of krie's own environment on its PATH.

    Passes on the command's output and its exit status. Other exit codes: 124, the time limit ended it; 125, the guest
    did not boot or was lost; 122, its kernel panicked. They come with the end of the guest's console.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # the guest must end with us
    found, machine = _prepare(kernel, append, cpu)
    with _Progress() as progress:
        if module is not None:
            command = ["env", f"{MODULE_VARIABLE}={build_module(found, module, Cache(), progress.say)}", *command]
        progress.say(f"booting {found.name} {found.release}")

        def through(data: bytes) -> None:
            progress.stop()
            pass_through(data)

        outcome = boot.run(found, command, machine, timeout_s=timeout, results=results, output=through)
    if outcome.end is boot.End.EXITED:
        sys.exit(outcome.status)
    for each in outcome.console:
        complain(each, by="console")
    complain(f"the guest {found.name} {_WHAT[outcome.end]} after {outcome.seconds:.0f} s")
    sys.exit(_ENDS[outcome.end])


@lab.command()
@_kernel
@_append
@_cpu
def shell(kernel: str, append: str, cpu: str) -> None:
    """A root shell in a guest; leaving it ends the guest."""
    found, machine = _prepare(kernel, append, cpu)
    sys.exit(boot.shell(found, machine) or ExitCode.OK)


_WHAT = {
    boot.End.TIMED_OUT: "was ended, its time was over,",
    boot.End.LOST: "did not boot, or was lost,",
    boot.End.PANICKED: "panicked",
}


def _prepare(name: str, append: str, cpu: str) -> tuple[kernels.Kernel, boot.Machine]:
    cache = Cache()
    with _Progress() as progress:
        found = kernels.find(name, cache, progress.say)
        progress.say("asking whether KVM works here")
        kvm = kvm_works(found.image, cache)
    return found, boot.Machine(kvm=kvm, cpu=cpu, append=append)


class _Progress:
    """Shows what takes time: a spinner on a terminal, lines elsewhere."""

    def __init__(self) -> None:
        shown = console(stderr=True)
        self._status = waiting(shown, "") if shown.is_terminal else None

    def __enter__(self) -> _Progress:
        if self._status is not None:
            self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def say(self, text: str) -> None:
        if self._status is not None:
            self._status.update(line(text))
        else:
            complain(text, by="krie lab")

    def stop(self) -> None:
        if self._status is not None:
            self._status.stop()
