"""`krie policy`: check and explain policies, and try them."""

from __future__ import annotations

import json
import os
import sys
from contextlib import ExitStack, closing
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from ..config import Config, load_config
from ..decision import Action
from ..errors import ExitCode, PolicyError
from ..output import complain, say, say_json, say_text
from ..plugin.offline import load_plugins
from ..policy.definition import written
from ..policy.opa_check import ask_opa
from ..policy.policy import Policy
from ..printable import json_line
from ..review.chosen import chosen
from ..review.eval_lines import Read, Reading, are_lines, decided
from ..review.explain_page import explain_page
from ..review.input_schemas import event_schemas
from ..review.journal_reader import MOST_LINE, pieces_of, standard_input
from ..review.recorded import Needs, Unreadable, object_of
from ..review.warnings import warnings
from ..tier.ability import ways_anywhere
from ..tier.explain import Explained, explain, modes_by_kind
from ..tier.subject import subject_of
from ..tier.trial import Trial
from ..tier.tried import evaluator, tried_engine
from ..tier.verify import python_look_up, verify
from . import render_policy
from .bundle_command import policy_bundle
from .command import config_file, config_option, json_option, need_root
from .lint_command import COMMANDS as LINT_COMMANDS
from .rego_test_command import policy_test
from .render import console, progress
from .review_commands import policy_diff, policy_replay

policy = click.Group("policy")


@policy.command("check")
@config_option
@click.option("--strict", is_flag=True, help="Take warnings for errors (exit code 4): for those who test policies.")
@json_option
def policy_check(config: Path | None, strict: bool, as_json: bool) -> None:
    """Compile all policies, list their rules, and warn of likely mistakes. Needs no root.

    OPA's own checker looks at them too, where an opa is found: policy.opa, .cache/tools beside the configuration, PATH.
    Warnings say where (FILE:LINE:COLUMN), what, and how to fix it: values, flags, fields and programs that nothing has,
    comparisons of unlike types, rules that can never fire, packages that take too long, METADATA unlike the rule.
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
@click.option("--policy", "by", metavar="POLICY", help="Decide by another one: a folder, a bundle, a revision of git.")
@click.option("--lines", is_flag=True, help="Read each line as a document, even if there is only one.")
@click.option(
    "--partial", is_flag=True, help="Also decide a document that lacks fields which rules read, and show which."
)
def policy_eval(config: Path | None, by: str | None, lines: bool, partial: bool) -> None:
    """Decide events from standard input: lines of the journal, or documents {"event": ..., "process": ...}.

    Prints the decision as JSON; of several lines, each with a document, one line for each, with its number. Needs no
    root. Exits with 4 where a line could not be decided: its kind is not one of a loaded plugin's, it lacks what rules
    read of such an event, or says what no event can be.
    """
    path = config_file(config)
    settings = load_config(path)
    loaded, _ = load_plugins(settings, str(path))
    sources = chosen(by, settings, loaded).sources if by is not None else None
    given = standard_input()
    start = given.readline(MOST_LINE + 1)
    while start and not start.strip():
        start = given.readline(MOST_LINE + 1)
    following = given.readline(MOST_LINE + 1)
    while following and not following.strip() and len(start) <= MOST_LINE:  # a blank line says nothing of what follows
        start += following
        following = given.readline(MOST_LINE + 1)
    start += following
    many = lines or are_lines(start)
    schemas = event_schemas(loaded)
    one = None if many else _object(start + given.read())
    with closing(evaluator(settings, loaded, sources)) as engine:
        on_error = Action[settings.policy.on_error.upper()]
        reading = Reading(Needs(engine.packages, schemas), partial)
        if one is not None:
            read = _read(one, reading)
            say_json(read.answer(Policy(engine, on_error=on_error, memo=0).decide(*read[:2])))
            return
        failed = False
        policy = Policy(engine, on_error=on_error, memo=settings.policy.memo, many=engine)
        for answer in decided(pieces_of(given, start=start), policy, reading):
            failed = failed or "action" not in answer
            say(json_line(json.dumps(answer)))
    sys.exit(ExitCode.POLICY if failed else ExitCode.OK)


@policy.command("explain")
@click.argument("rule", default="")
@config_option
@click.option("--here", is_flag=True, help="Attach the probes for a moment, and say what holds on this machine (root).")
@click.option("--html", "as_html", is_flag=True, help="Print a page for reviewers, which needs no other file.")
@json_option
def policy_explain(rule: str, config: Path | None, here: bool, as_html: bool, as_json: bool) -> None:
    """Show for each rule whether the kernel or user space decides it, why, and what a first attempt gets.

    Without --here it says what some kernel can do: which probes are attached decides about the rest.
    """
    path = config_file(config)
    settings = load_config(path)
    if here:
        need_root()
        with progress("attaching the probes"):
            from ..agent.examination import explain_here  # noqa: PLC0415 - all of the agent, which checks do without

            explained = explain_here(settings, str(path))
    else:
        explained = _explained(settings, str(path))
    chosen = [each for each in explained if rule in ("", each.placement.rule.id)]
    if not chosen:
        raise PolicyError(f"no rule has the id {rule}; krie policy check lists them")
    if as_html:
        engine = tried_engine(settings, load_plugins(settings, str(path))[0])
        sources = {each.id: written(engine.analysis.definition(each)) for each in engine.rules}
        say_text(explain_page(chosen, engine.revision, sources, os.uname().release if here else ""))
    elif as_json:
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
    """Test that the kernel's tables decide as Rego does, with random records near the rules' constants.

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


for _each in (*LINT_COMMANDS, policy_test, policy_diff, policy_replay, policy_bundle):
    policy.add_command(_each)


def _object(text: bytes) -> dict[str, Any]:
    if not text.strip():
        raise PolicyError("<stdin>: is empty: give it an event, such as a line of the journal")
    try:
        json.loads(text.decode())
    except UnicodeDecodeError as error:
        raise PolicyError(f"<stdin>: is not UTF-8: byte {text[error.start]:#04x} at {error.start}") from error
    except json.JSONDecodeError as error:
        raise PolicyError(f"<stdin>:{error.lineno}:{error.colno}: is not valid JSON: {error.msg}") from error
    except (RecursionError, ValueError):
        pass  # the reader of lines says why, and refuses more
    try:
        return object_of(text)
    except Unreadable as error:
        raise PolicyError(f"<stdin>:1:1: {error}") from error


def _read(content: dict[str, Any], reading: Reading) -> Read:
    try:
        return reading.read(content)
    except (Unreadable, PolicyError) as error:
        raise PolicyError(f"<stdin>:1:1: {error}") from error


def _explained(config: Config, place: str) -> list[Explained]:
    loaded, _ = load_plugins(config, place)
    subject = subject_of(config, loaded, tried_engine(config, loaded))
    return explain(
        subject.tiers, ways_anywhere(loaded.sensors), subject.engine.rules, modes_by_kind(loaded.sensors, loaded.modes)
    )
