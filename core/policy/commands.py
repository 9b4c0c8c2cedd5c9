"""`krie policy`: check and explain policies, and try them."""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack, closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from .. import render_policy
from ..command import config_file, config_option, json_option, need_root
from ..config import Config, load_config
from ..decision import Action
from ..errors import ExitCode, PolicyError
from ..examination import explain_here
from ..offline import load_plugins
from ..output import complain, say, say_json, say_text
from ..render import console, progress
from .ability import ways_anywhere
from .bundle_command import policy_bundle
from .explain import Explained, explain, modes_by_kind
from .opa_check import ask_opa
from .policy import Policy
from .subject import subject_of
from .trial import Trial
from .tried import evaluator, tried_engine
from .verify import python_look_up, verify
from .warnings import warnings

policy = click.Group("policy")
policy.add_command(policy_bundle)


@policy.command("check")
@config_option
@click.option("--strict", is_flag=True, help="Take warnings for errors (exit code 4): for those who test policies.")
@json_option
def policy_check(config: Path | None, strict: bool, as_json: bool) -> None:
    """Compile all policies, list their rules, and warn of what cannot be meant. Needs no root.

    OPA's own checker looks at them too, where an opa is found: policy.opa, .cache/tools beside the configuration, PATH.
    Warnings say where (FILE:LINE:COLUMN), what and how to mend it: values, flags, fields and programs that nothing has,
    comparisons of unlike types, rules that can never fire, METADATA unlike the rule.
    """
    path = config_file(config)
    settings = load_config(path)
    loaded, _ = load_plugins(settings, str(path))
    engine = tried_engine(settings, loaded)
    asked = ask_opa(settings.policy.opa, engine.sources, path.absolute().parent)
    subject_of(settings, loaded, engine)  # raises for a rule that must be inline and cannot be
    policy = Policy(engine, on_error=Action[settings.policy.on_error.upper()], memo=0)
    found = warnings(engine, settings, loaded)
    if as_json:
        rules = [
            {
                "id": each.id,
                "action": each.action,
                "severity": each.metadata.severity,
                "place": each.place,
                "title": each.metadata.title,
            }
            for each in policy.rules
        ]
        opa = {"accepts": not asked.why, "path": asked.opa, "why": asked.why}
        shown = {"opa": opa, "problems": list(map(str, found)), "warnings": [each.to_json() for each in found]}
        say_json({"revision": policy.revision, "rules": rules, **shown})
    else:
        render_policy.rules(console(), policy.rules)
        say("", f"revision {policy.revision}", f"OPA's checker {asked}")
    for each in found:
        complain(each, by="error" if strict else "warning")
    sys.exit(ExitCode.POLICY if found and strict else ExitCode.OK)


@policy.command("eval")
@config_option
def policy_eval(config: Path | None) -> None:
    """Decide one event from standard input: a line of the journal, or a document {"event": ..., "process": ...}.

    Prints the decision as JSON. Needs no root.
    """
    path = config_file(config)
    settings = load_config(path)
    loaded, _ = load_plugins(settings, str(path))
    document = _document(sys.stdin.buffer.read())
    with closing(evaluator(settings, loaded)) as engine:
        policy = Policy(engine, on_error=Action[settings.policy.on_error.upper()], memo=0)
        decision = policy.decide(document["event"]["kind"], document)
    say_json(decision.to_json())


@policy.command("explain")
@click.argument("rule", default="")
@config_option
@click.option("--here", is_flag=True, help="Attach the probes for a moment, and say what holds on this machine (root).")
@json_option
def policy_explain(rule: str, config: Path | None, here: bool, as_json: bool) -> None:
    """Say of each rule whether the kernel or user space decides it, why, and what a first attempt gets.

    Without --here it says what some kernel can do: which probes are attached decides about the rest.
    """
    path = config_file(config)
    settings = load_config(path)
    if here:
        need_root()
        with progress("attaching the probes"):
            explained = explain_here(settings, str(path))
    else:
        explained = _explained(settings, str(path))
    chosen = [each for each in explained if rule in ("", each.placement.rule.id)]
    if not chosen:
        raise PolicyError(f"no rule has the id {rule}; krie policy check lists them")
    if as_json:
        say_json([each.to_json() for each in chosen])
    elif rule:
        render_policy.explained(console(), chosen)
    else:
        render_policy.tiers(console(), chosen)


@policy.command("verify")
@config_option
@click.option(
    "--events",
    type=click.IntRange(min=1),
    default=10_000,
    help="Random records to try, all kinds together.",
    show_default=True,
)
@click.option("--kernel", is_flag=True, help="Look them up by the BPF code, too, which is attached to nothing (root).")
@click.option("--seed", type=int, default=0, help="Draw other records.", show_default=True)
@json_option
def policy_verify(config: Path | None, events: int, kernel: bool, seed: int, as_json: bool) -> None:
    """Try whether the kernel's tables decide what Rego says, on random records near to the rules' constants.

    A disagreement is a bug of KRIe: it is shrunk to its smallest record and printed as a test in Rego.
    """
    path = config_file(config)
    settings = load_config(path)
    loaded, _ = load_plugins(settings, str(path))
    subject = subject_of(settings, loaded, tried_engine(settings, loaded))
    tables = subject.tables()
    look_ups = {"the table": python_look_up(subject, tables)}
    with ExitStack() as stack, progress(f"trying {events:,} records"):
        if kernel:
            need_root()
            trial = Trial(loaded.sensors, settings.agent, stack)
            trial.install(tables, subject.numbers)
            look_ups["the kernel"] = trial.look_up
        found = verify(subject, look_ups, events=events, start=seed)
    if as_json:
        in_kernel = subject.tiers.in_kernel
        shown = [{**asdict(each), "rego": each.as_rego(in_kernel(each.kind))} for each in found.disagreements]
        say_json({"tried": found.tried, "decided": found.decided, "disagreements": shown})
    else:
        render_policy.verified(console(), found, list(look_ups))
        for each in found.disagreements:
            say_text(f"\n{each.as_rego(subject.tiers.in_kernel(each.kind))}")
    sys.exit(ExitCode.POLICY if found.disagreements else ExitCode.OK)


def _document(text: bytes) -> dict[str, Any]:
    try:
        content = json.loads(text.decode())
    except UnicodeDecodeError as error:
        raise PolicyError(f"<stdin>: is no UTF-8 text: byte {text[error.start]:#04x} at {error.start}") from error
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


def _explained(config: Config, place: str) -> list[Explained]:
    loaded, _ = load_plugins(config, place)
    subject = subject_of(config, loaded, tried_engine(config, loaded))
    return explain(
        subject.tiers, ways_anywhere(loaded.sensors), subject.engine.rules, modes_by_kind(loaded.sensors, loaded.modes)
    )
