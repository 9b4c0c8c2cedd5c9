"""`krie policy`: check policies, and try them on an event."""

from __future__ import annotations

import json
import sys
from typing import Any

import typer
from rich.console import Console

from .. import render
from ..command import DEFAULT_CONFIG, ConfigOption, JsonOption, event_types, load_plugins
from ..config import Config, load_config
from ..decision import Action
from ..errors import ExitCode, PolicyError
from ..plugin_manager import Plugins
from .analysis import unknown_names
from .embedded import EmbeddedEngine
from .policy import Policy
from .reload import event_fields, policy_folders, read_policy

policy = typer.Typer(help="Check policies, and try them on an event.", no_args_is_help=True)


@policy.command("check")
def policy_check(config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False) -> None:
    """Compile all policies, list their rules, and point at names that nothing has. Needs no root."""
    settings = load_config(config)
    loaded, _ = load_plugins(settings, str(config))
    policy = _policy(settings, loaded)
    problems = unknown_names(policy.rules, event_fields(event_types(loaded), loaded.facts))
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


@policy.command("eval")
def policy_eval(config: ConfigOption = DEFAULT_CONFIG) -> None:
    """Decide one event from standard input: a line of the journal, or a document {"event": ..., "process": ...}.

    Prints the decision as JSON. Needs no root.
    """
    settings = load_config(config)
    loaded, _ = load_plugins(settings, str(config))
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
