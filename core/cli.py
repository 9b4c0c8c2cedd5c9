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
from .agent_events import AGENT_EVENTS
from .config import Config, load_config
from .decision import Action
from .doctor import examine
from .enrich import PROCESS_SCHEMA, document_schema
from .errors import ExitCode, KernelError, KrieError, PolicyError
from .event import EventTypes
from .kernel.features import Features
from .plugin_guard import PluginFault
from .plugin_manager import Plugins, available
from .policy.analysis import unknown_names
from .policy.embedded import EmbeddedEngine
from .policy.policy import Policy
from .policy.reload import event_fields, policy_folders, read_policy
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
policy_app = typer.Typer(help="Check policies, and try them on an event.", no_args_is_help=True)
app.add_typer(policy_app, name="policy")
app.add_typer(lab, name="lab")

_Config = Annotated[
    Path, typer.Option("--config", "-c", help="The configuration.", envvar="KRIE_CONFIG", show_default=True)
]
_Json = Annotated[bool, typer.Option("--json", help="Print JSON, for machines.")]
_DEFAULT = Path("krie.toml")


@app.command()
def run(
    config: _Config = _DEFAULT,
    duration: Annotated[float | None, typer.Option(help="End after so many seconds.", min=0.1)] = None,
) -> None:
    """Run the agent in the foreground: attach the probes, judge what they see, write the journal.

    On a terminal it shows a summary and readable events; elsewhere the journal's JSON lines. SIGINT and SIGTERM detach
    everything and report counts; SIGHUP loads the policies anew.
    """
    _need_root()
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
        signal.signal(signal.SIGTERM, lambda *_: agent.terminate())
        signal.signal(signal.SIGHUP, lambda *_: agent.send_signal(signal.SIGHUP))
        assert agent.stdout is not None
        for text in agent.stdout:
            line = json.loads(text)
            if line["kind"] == "krie.started":
                waiting.stop()
            live.show(line)
    return agent.returncode


@app.command()
def doctor(config: _Config = _DEFAULT, as_json: _Json = False) -> None:
    """Try everything on this kernel: which probes are alive and by which way, what they cost, which rules are blind."""
    _need_root()
    console = Console()
    with console.status("compiling, attaching, trying ...") if not as_json else _quietly():
        report = examine(load_config(config), str(config))
    if as_json:
        print(json.dumps(report.to_json(), indent=2))
    else:
        render.doctor(console, report)
    raise typer.Exit(ExitCode.OK if report.healthy else ExitCode.DEGRADED)


@app.command()
def plugins(config: _Config = _DEFAULT, as_json: _Json = False) -> None:
    """List the installed plugins, and what those that are configured bring."""
    settings = load_config(config)
    loaded, faults = _load_plugins(settings, str(config))
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
    config: _Config = _DEFAULT,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON Schemas of what policies see.")] = False,
) -> None:
    """List the events that the configured plugins emit, with their fields."""
    loaded, _ = _load_plugins(load_config(config), str(config))
    types = _event_types(loaded)
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


@policy_app.command("check")
def policy_check(config: _Config = _DEFAULT, as_json: _Json = False) -> None:
    """Compile all policies, list their rules, and point at names that nothing has. Needs no root."""
    settings = load_config(config)
    loaded, _ = _load_plugins(settings, str(config))
    policy = _policy(settings, loaded)
    problems = unknown_names(policy.rules, event_fields(_event_types(loaded), loaded.facts))
    if as_json:
        found = [
            {"id": each.id, "action": each.action, "place": each.place, "title": each.title} for each in policy.rules
        ]
        print(json.dumps({"revision": policy.revision, "rules": found, "problems": problems}, indent=2))
    else:
        render.rules(Console(), policy.rules)
        print(f"\nrevision {policy.revision}")
    for problem in problems:
        print(problem, file=sys.stderr)
    raise typer.Exit(ExitCode.POLICY if problems else ExitCode.OK)


@policy_app.command("eval")
def policy_eval(config: _Config = _DEFAULT) -> None:
    """Decide one event from standard input: a line of the journal, or a document {"event": ..., "process": ...}.

    Prints the decision as JSON. Needs no root.
    """
    settings = load_config(config)
    loaded, _ = _load_plugins(settings, str(config))
    document = _document(sys.stdin.read())
    decision = _policy(settings, loaded).decide(document["event"]["kind"], document)
    print(json.dumps(decision.to_json(), indent=2))


def _document(text: str) -> dict[str, Any]:
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise PolicyError(f"<stdin>:{error.lineno}:{error.colno}: is no JSON: {error.msg}") from error
    if not isinstance(content, dict) or not isinstance(content.get("event"), dict):
        raise PolicyError('<stdin>:1:1: must be an object with "event", such as a line of the journal')
    kind = content.get("kind", content["event"].get("kind"))
    if not isinstance(kind, str):
        raise PolicyError('<stdin>:1:1: has no "kind", in the event or beside it')
    return {
        "event": {"kind": kind, **content["event"]},
        "process": content.get("process", {}),
        "host": content.get("host", {}),
        "health": content.get("health", {}),
    }


def _policy(config: Config, loaded: Plugins) -> Policy:
    engine = EmbeddedEngine(read_policy(config, policy_folders(config, loaded)))
    return Policy(engine, on_error=Action[config.policy.on_error.upper()], memo=0)


def _load_plugins(config: Config, place: str) -> tuple[Plugins, list[PluginFault]]:
    faults: list[PluginFault] = []
    loaded = Plugins.load(config, place, Features(), faults.append)
    for fault in faults:
        print(f"krie: {fault.error}\n{fault.traceback}".rstrip(), file=sys.stderr)
    return loaded, faults


def _event_types(loaded: Plugins) -> EventTypes:
    own = (event for each in loaded.loaded if each.sensor is not None for event in each.sensor.events)
    return EventTypes((*AGENT_EVENTS, *own))


def _type_of(schema: Mapping[str, Any]) -> str:
    if "enum" in schema:
        names = schema["enum"]
        return " | ".join(names) if len(names) <= 8 else f"one of {len(names)} names"
    if schema.get("type") == "array":
        return f"list of {_type_of(schema['items'])}"
    return "hexadecimal text" if "pattern" in schema else str(schema["type"])


def _description(fact: Any) -> str:
    return str(fact.get("description", "")) if isinstance(fact, Mapping) else ""


def _need_root() -> None:
    if os.geteuid() != 0:
        raise KernelError("attaching BPF programs needs root", 0, "use sudo")


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
