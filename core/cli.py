"""The command line. Maps errors to exit codes; everything else happens in the modules that it calls."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from . import render
from .admin import ask
from .command import DEFAULT_CONFIG, ConfigOption, JsonOption, event_types, load_plugins, need_root
from .config import load_config
from .doctor import examine
from .enrich import PROCESS_SCHEMA, document_schema
from .errors import ExitCode, KrieError
from .new_plugin import plugin
from .plugin_manager import available
from .policy.commands import policy
from .testing.lab.commands import lab

_EXIT_CODES = "Exit codes: " + "; ".join(f"{each.value} {each.meaning}" for each in ExitCode) + "."

app = typer.Typer(
    name="krie",
    help="Detect Linux kernel exploits and kernel tampering with BPF; Rego policies decide.\n\n"
    "Start with `krie doctor`: it tells what this kernel offers. Then `krie run` shows and judges what happens.",
    epilog=_EXIT_CODES,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
app.add_typer(plugin, name="plugin")
app.add_typer(policy, name="policy")
app.add_typer(lab, name="lab")


@app.command()
def run(
    config: ConfigOption = DEFAULT_CONFIG,
    duration: Annotated[float | None, typer.Option(help="End after so many seconds.", min=0.1)] = None,
) -> None:
    """Run the agent in the foreground: attach the probes, judge what they see, write the journal.

    On a terminal it shows a summary and readable events; elsewhere the journal's JSON lines. SIGINT and SIGTERM detach
    everything and report counts; SIGHUP loads the policies anew. An agent that enforces guards itself: it takes signals
    from tgid 1 (systemd) only, and Ctrl-C.
    """
    need_root()
    command = [sys.executable, "-I", "-m", "krie.agent", "--config", str(config), "--stdout"]
    command += ["--duration", str(duration)] if duration is not None else []
    if not sys.stdout.isatty():
        sys.stdout.flush()
        os.execv(command[0], command)  # noqa: S606 - the agent takes this process's place: it imports no CLI library
    raise typer.Exit(_run_on_terminal([*command, "--quiet"]))


def _run_on_terminal(command: list[str]) -> int:
    console = Console()
    live = render.Live(console)
    waiting = console.status("compiling and attaching ...")
    with waiting, subprocess.Popen(command, stdout=subprocess.PIPE) as agent:
        # A Ctrl-C reaches the agent too, which then ends; we show what it still says.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda number, _: _pass_on(agent, number))
        assert agent.stdout is not None
        for text in agent.stdout:
            line = json.loads(text)
            if line["kind"] == "krie.started":
                waiting.stop()
            live.show(line)
    return agent.returncode


def _pass_on(agent: subprocess.Popen[bytes], number: int) -> None:
    try:
        agent.send_signal(number)
    except PermissionError:
        hint = "press Ctrl-C on its terminal, or let systemd end it"
        print(f"krie: the agent guards itself, and takes no signal from anybody but tgid 1: {hint}", file=sys.stderr)


@app.command()
def doctor(config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False) -> None:
    """Try everything on this kernel: which probes are alive and by which way, what they cost, which rules are blind."""
    need_root()
    console = Console()
    with console.status("compiling, attaching, trying ...") if not as_json else _quietly():
        report = examine(load_config(config), str(config))
    if as_json:
        print(json.dumps(report.to_json(), indent=2))
    else:
        render.doctor(console, report)
    raise typer.Exit(ExitCode.OK if report.healthy else ExitCode.DEGRADED)


@app.command()
def status(config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False) -> None:
    """Ask the running agent how it stands: modes, probes, rates, losses, who is poisoned by which rule, breakers."""
    need_root()
    answer = ask(Path(load_config(config).agent.run_dir), {"ask": "status"})
    if as_json:
        print(json.dumps(answer, indent=2))
    else:
        render.status(Console(), answer)


@app.command()
def clear(
    tgid: Annotated[int | None, typer.Argument(help="The process that shall be free again.", min=1)] = None,
    rule: Annotated[str | None, typer.Option(help="All that this rule did; its breaker is re-armed.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All of it; all breakers are re-armed.")] = False,
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: JsonOption = False,
) -> None:
    """Take back what the running agent decided: poison and refusals of a process, by a rule, or all.

    A poisoned process cannot do so itself: use another session, or wait until the time is over.
    """
    if (tgid is not None) + (rule is not None) + everything != 1:
        raise typer.BadParameter("say one of TGID, --rule ID and --all")
    need_root()
    what = {"tgid": tgid} if tgid is not None else {"rule": rule} if rule is not None else {"all": True}
    answer = ask(Path(load_config(config).agent.run_dir), {"ask": "clear", **what})
    if as_json:
        print(json.dumps(answer, indent=2))
        return
    rearmed = f"; enforced again: {', '.join(answer['rearmed'])}" if answer["rearmed"] else ""
    print(f"{answer['poisoned']} processes and {answer['verdicts']} verdicts cleared{rearmed}")


@app.command()
def plugins(config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False) -> None:
    """List the installed plugins, and what those that are configured bring."""
    settings = load_config(config)
    loaded, faults = load_plugins(settings, str(config))
    wrong = {fault.plugin: fault.error for fault in faults}
    rows: list[dict[str, Any]] = []
    brought = {each.name: each for each in loaded.loaded}
    for name, entry in sorted(available().items()):
        plugin = brought.get(name)
        sensor = plugin.sensor if plugin is not None else None
        state = "degraded" if name in wrong else plugin.config.mode if plugin is not None else "not configured"
        rows.append(
            {
                "name": name,
                "state": state,
                "distribution": f"{entry.dist.name} {entry.dist.version}" if entry.dist is not None else "",
                "probes": [each.name for each in sensor.probes] if sensor is not None else [],
                "events": [each.NAME for each in sensor.events] if sensor is not None else [],
                "problem": wrong.get(name, ""),
            }
        )
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    columns = ("name", "state", "distribution", "probes", "problem")
    cells = [
        [escape(", ".join(row[key]) if isinstance(row[key], list) else row[key]) for key in columns] for row in rows
    ]
    Console().print(render.table("Plugins", columns, cells))


@app.command()
def events(
    config: ConfigOption = DEFAULT_CONFIG,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON Schemas of what policies see.")] = False,
) -> None:
    """List the events that the configured plugins emit, with their fields."""
    loaded, _ = load_plugins(load_config(config), str(config))
    types = event_types(loaded)
    if schema:
        schemas = {each.name: document_schema(each, loaded.facts(each.name)) for each in types}
        print(json.dumps({"event": schemas, "process": PROCESS_SCHEMA}, indent=2))
        return
    for each in types:
        rows = [(field.name, escape(_type_of(field.wire.schema())), escape(field.doc)) for field in each.own_fields]
        rows += [(name, "process", "what is known of it") for name in each.event.PROCESSES]
        rows += [(name, "fact", escape(str(_description(fact)))) for name, fact in loaded.facts(each.name).items()]
        title = f"\n{each.name} ({each.kind:#06x}): {(each.event.__doc__ or '').strip().splitlines()[0]}"
        Console().print(render.table(escape(title), ("field", "type", "meaning"), rows))


def _type_of(schema: Mapping[str, Any]) -> str:
    if "enum" in schema:
        names = schema["enum"]
        return " | ".join(names) if len(names) <= 8 else f"one of {len(names)} names"
    if schema.get("type") == "array":
        return f"list of {_type_of(schema['items'])}"
    return "hexadecimal text" if "pattern" in schema else str(schema["type"])


def _description(fact: Any) -> str:
    return str(fact.get("description", "")) if isinstance(fact, Mapping) else ""


@contextmanager
def _quietly() -> Iterator[None]:
    yield


def main() -> None:
    """Entry point of the `krie` command."""
    try:
        app()
    except KrieError as error:
        print(f"krie: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
