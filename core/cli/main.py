"""The command line. Maps errors to exit codes; everything else happens in the modules that the commands import.

They do so when they run: `krie status` shall not wait for what `krie doctor` needs.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any, TextIO

import click

from ..errors import ExitCode
from ..output import complain, complain_of, complain_text, say, say_json, visible_streams
from .command import PATH, config_file, config_file_if_any, config_option, json_option, need_root
from .groups import Commands, LazyGroup, ReaderGoneError

_HELP = """Detect Linux kernel exploits and kernel tampering with BPF; Rego policies decide.

Start with krie doctor: it tells what this kernel offers. Then krie run shows and judges what happens."""
_EXIT_CODES = "\b\nExit codes: " + "\n  ".join(f"{each.value} {each.meaning}" for each in ExitCode)

_GROUPS = (
    LazyGroup("config", "krie.cli.config:config", "Write a sample configuration, and check one."),
    LazyGroup("plugin", "krie.cli.new_plugin:plugin", "Write plugins."),
    LazyGroup(
        "cfi", "krie.plugins.cfi.commands:cfi", "Derive and explain who may call the kernel's sensitive functions."
    ),
    LazyGroup("policy", "krie.cli.policy:policy", "Check and explain policies, and try them."),
    LazyGroup(
        "lab",
        "krie.cli.lab:lab",
        "Boot stock Debian kernels in QEMU with this machine's files, and run commands there as root.\n\n"
        "Nothing in a guest changes a file of this machine, but for the folder of --results. Kernels lie in the "
        "user's cache folder (krie/lab).",
    ),
)


@click.group(cls=Commands, help=_HELP, epilog=_EXIT_CODES)
@click.version_option(package_name="krie", message="%(package)s %(version)s")
def krie() -> None:
    """All commands."""


@krie.command()
@config_option
@click.option("--duration", type=click.FloatRange(min=0.1), metavar="S", help="End after so many seconds.")
def run(config: Path | None, duration: float | None) -> None:
    """Run the agent in the foreground: attach the probes, judge what they see, write the journal.

    On a terminal it shows a summary and readable events; elsewhere the journal's JSON lines. SIGINT and SIGTERM detach
    everything and report counts; SIGHUP reloads the policies and reopens the journal. An agent that enforces guards
    itself: it takes signals from tgid 1 (systemd) only, and Ctrl-C.
    """
    need_root()
    command = [sys.executable, "-I", "-m", "krie.agent", f"--config={config_file(config)}", "--stdout"]
    command += [f"--duration={duration}"] if duration is not None else []
    if not sys.stdout.isatty():
        sys.stdout.flush()
        os.execv(command[0], command)  # noqa: S606 - the agent takes this process's place: it imports no CLI library
    from .terminal import run_on_terminal

    sys.exit(run_on_terminal([*command, "--quiet"]))


@krie.command()
@config_option
@json_option
@click.option("--timings", is_flag=True, help="Also show how long each phase took.")
def doctor(config: Path | None, as_json: bool, timings: bool) -> None:
    """Show which probes are alive on this kernel, and by which alternative, what they cost, and which rules are blind.

    Asks the running agent; if none runs, attaches everything for a moment and tries it.
    """
    need_root()
    from ..config_file import run_dir
    from .doctor import consult

    path = config_file(config)
    report = consult(run_dir(path), lambda: _try_everything(path, quiet=as_json))
    if as_json:
        say_json(report)
    else:
        from . import render, render_doctor

        render_doctor.doctor(render.console(), report)
        if timings:
            from ..timings import Phase
            from .render_timings import timings as render_timings

            render_timings(render.console(), map(Phase.from_json, report["timings"]))
    sys.exit(ExitCode.OK if report["healthy"] else ExitCode.DEGRADED)


def _try_everything(config: Path, *, quiet: bool) -> dict[str, Any]:
    from ..agent.examination import examine
    from ..config import load_config
    from .render import progress

    settings = load_config(config)
    with progress("compiling, attaching, trying ...", quiet=quiet):
        return examine(settings, str(config)).to_json()


@krie.command()
@json_option
def integrity(as_json: bool) -> None:
    """Take one full look at the kernel now; show what was compared with what, what differs, and what explains it.

    Its code and read-only data with the boot image; the tables of system calls with the handlers' names and with the
    switch; the interrupt table, tables and lists of functions with who owns code; registers with symbols. Needs no
    agent, no configuration, no compiler, and works beside an agent. Names what cannot be looked at.

    Exits with 0 where nothing differs without a legal cause, 9 where something does, 5 where nothing does, but the code
    could not be compared (as without the boot image).
    """
    need_root()
    from ..plugin.integrity import exit_code, look, to_json
    from .render import console, progress

    with progress("reading the kernel's symbols ...", quiet=as_json) as tell:
        checks = look(tell)
    if as_json:
        say_json(to_json(checks))
    else:
        from .render_integrity import integrity as render

        render(console(), to_json(checks))
    sys.exit(exit_code(checks))


@krie.command("compile")
@click.option("--btf", type=PATH, metavar="FILE", help="The kernel's types, as /sys/kernel/btf/vmlinux has them.")
@click.option("--vmlinux", type=PATH, metavar="FILE", help="The kernel itself: vmlinux, or a bootable vmlinuz.")
@click.option("--kernel", default="", metavar="NAME", help="One of the lab's, by name: see krie lab kernels.")
@click.option("--output", type=PATH, metavar="FOLDER", required=True, help="The folder that gets the programs.")
@config_option
@json_option
def compile_programs(
    btf: Path | None, vmlinux: Path | None, kernel: str, output: Path, config: Path | None, as_json: bool
) -> None:
    """Compile the configured plugins' programs for a kernel, which need not be the one that runs here.

    Needs no root. A host that has the folder as agent.compiled_dir needs no compiler: copy it there, owned by root. Its
    configuration may be another one that names the same plugins. What is there already is not compiled again.
    """
    if (btf is not None) + (vmlinux is not None) + bool(kernel) != 1:
        raise click.UsageError("give exactly one of --btf FILE, --vmlinux FILE or --kernel NAME")
    from .compile_command import compile_command

    compile_command(config_file(config), output, btf=btf, vmlinux=vmlinux, kernel=kernel, as_json=as_json)


@krie.command()
@config_option
@json_option
def status(config: Path | None, as_json: bool) -> None:
    """Show the state of the running agent: modes, probes, rates, losses, who is poisoned by which rule, breakers."""
    need_root()
    from ..agent.admin import ask
    from ..config_file import run_dir

    answer = ask(run_dir(config_file_if_any(config)), {"ask": "status"})
    if as_json:
        from ..agent.resident import resident

        say_json({**answer, "memory": resident(answer["tgid"]).to_json()})
        return
    from . import render

    render.status(render.console(), answer)


@krie.command()
@click.argument("tgid", type=click.IntRange(min=1), required=False)
@click.option("--rule", metavar="ID", help="All that this rule did; its breaker is re-armed.")
@click.option("--all", "everything", is_flag=True, help="All of it; all breakers are re-armed.")
@click.option(
    "--token-file", type=click.File(), help='Holds the token that enforcement.clear = "token" asks for; - is stdin.'
)
@config_option
@json_option
def clear(
    tgid: int | None,
    rule: str | None,
    everything: bool,
    token_file: TextIO | None,
    config: Path | None,
    as_json: bool,
) -> None:
    """Take back what the running agent decided: poison and refusals of a process, by a rule, or all.

    A poisoned process cannot run it: use another session, or wait until the poison expires.
    """
    if (tgid is not None) + (rule is not None) + everything != 1:
        raise click.UsageError("give exactly one of TGID, --rule ID or --all")
    need_root()
    from ..agent.admin import ask
    from ..config_file import run_dir

    what = {"tgid": tgid} if tgid is not None else {"rule": rule} if rule is not None else {"all": True}
    token = {"token": token_file.read().strip()} if token_file is not None else {}
    answer = ask(run_dir(config_file_if_any(config)), {"ask": "clear", **what, **token})
    if as_json:
        say_json(answer)
        return
    rearmed = f"; enforced again: {', '.join(answer['rearmed'])}" if answer["rearmed"] else ""
    say(f"{answer['poisoned']} processes and {answer['verdicts']} verdicts cleared{rearmed}")


@krie.command()
@config_option
@click.option("--load", is_flag=True, help="Import those that are configured: what they bring, and what is wrong.")
@json_option
def plugins(config: Path | None, load: bool, as_json: bool) -> None:
    """List the installed plugins, and in which mode those are that are configured. Without --load none is imported."""
    from . import plugin_list

    path = config_file_if_any(config)
    rows = plugin_list.loaded(path) if load else plugin_list.installed(path)
    if as_json:
        say_json(rows)
    else:
        plugin_list.show(rows)


@krie.command()
@click.argument("kind", required=False, default="")
@config_option
@click.option("--schema", is_flag=True, help="Print the JSON Schemas of what policies see.")
def events(kind: str, config: Path | None, schema: bool) -> None:
    """List the events that the configured plugins emit, with their fields.

    KIND names one event, such as runtime_integrity.ptrace; a plugin's name stands for all of its events.
    """
    from . import event_list

    path = config_file_if_any(config)
    if schema:
        say_json(event_list.schemas(path, kind))
    else:
        event_list.show(path, kind)


for _each in _GROUPS:
    krie.add_command(_each)


def main() -> None:
    """Entry point of the `krie` command."""
    with visible_streams():
        sys.exit(_run())


def _run() -> int:
    try:
        try:
            status: object = krie(prog_name="krie", standalone_mode=False)
        finally:
            sys.stdout.flush()
    except click.ClickException as error:
        _complain_of_usage(error)
        return ExitCode.USAGE
    except click.Abort:
        return 128 + signal.SIGINT
    except (ReaderGoneError, BrokenPipeError):
        # The end that any command has whose reader leaves; what is still to be written goes nowhere.
        _write_nowhere()
        return 128 + signal.SIGPIPE
    except Exception as error:
        status = complain_of(error)
        try:
            sys.stdout.flush()
        except OSError:  # what could not be written cannot be written at the end, either
            _write_nowhere()
        return int(status)
    return status if isinstance(status, int) else ExitCode.OK  # what --help and --version end with


def _write_nowhere() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _complain_of_usage(error: click.ClickException) -> None:
    context = error.ctx if isinstance(error, click.UsageError) else None
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        complain_text(error.format_message())
        return
    if context is not None:
        complain_text(f"{context.get_usage()}\nTry '{context.command_path} --help' for help.")
    complain(error.format_message())
