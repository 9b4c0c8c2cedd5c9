"""`krie policy test`: anyone's Rego tests, in the engine that decides and in OPA."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from ..config import load_config
from ..errors import ExitCode, PolicyError
from ..output import complain, say, say_json
from ..plugin.offline import load_plugins
from ..policy.folders import policy_folders
from ..policy.tool import find
from ..review.rego_tests import Run, differences, read_tests
from ..review.rego_tests_embedded import run_embedded
from ..review.rego_tests_opa import run_opa
from ..tier.tried import tried_engine
from .command import config_file, config_option, json_option
from .render import progress

_SHOWN_LINES = 10


@click.command("test")
@config_option
@click.option(
    "--engine",
    type=click.Choice(["embedded", "opa", "both"]),
    default="embedded",
    show_default=True,
    help="Where to run them; both: tests that pass in one only are failures, too.",
)
@click.option(
    "--threshold",
    type=click.FloatRange(0, 100),
    default=0.0,
    metavar="PERCENT",
    help="Fail where the tests reach less than this of all lines, in any engine.",
)
@json_option
def policy_test(config: Path | None, engine: str, threshold: float, as_json: bool) -> None:
    """Run the tests (`*_test.rego`) in all configured folders, and show which lines of rules they reach. Needs no root.

    A test is a rule `test_...` that must be true. It sees the data that is in force. OPA is policy.opa, or the one in
    .cache/tools beside the configuration, or that of PATH. The embedded engine evaluates all rules of a package when
    one is asked for: of the lines that are reached, OPA's account is the stricter one.
    """
    path = config_file(config)
    settings = load_config(path)
    loaded, _ = load_plugins(settings, str(path))
    sources = tried_engine(settings, loaded).sources
    tests = read_tests(policy_folders(settings, loaded))
    runs: list[Run] = []
    with progress("running the tests ...", quiet=as_json):
        if engine != "opa":
            runs.append(run_embedded(sources, tests, settings.policy))
        if engine != "embedded":
            runs.append(run_opa(_opa(settings.policy.opa, path.absolute().parent), sources, tests))
    unlike = differences(*runs) if len(runs) == 2 else []
    bad = bool(unlike) or any(run.failed or _short_of(threshold, run) for run in runs)
    if as_json:
        say_json({"runs": [_json(run) for run in runs], "differences": unlike, "passed": not bad})
    else:
        _show(runs, unlike, threshold)
    sys.exit(ExitCode.POLICY if bad else ExitCode.OK)


def _opa(configured: str, folder: Path) -> str:
    opa = configured or find("opa", folder)
    if not opa:
        raise PolicyError("no opa is installed; name one in policy.opa, or run the tests with --engine embedded")
    return opa


def _show(runs: Sequence[Run], unlike: Sequence[str], threshold: float) -> None:
    for run in runs:
        for each in run.failed:
            complain(f"{each.place}: {each.package}.{each.name} ({run.engine}): {each.why}")
    for difference in unlike:
        complain(f"the engines differ: {difference}")
    for run in runs:
        passed = len(run.results) - len(run.failed)
        reached = f"; they reach {run.percent:.1f} % of the lines" if run.percent is not None else ""
        say(f"{run.engine}: {passed} of {len(run.results)} tests pass{reached}")
        for file, lines in sorted(run.missed.items()):
            if lines:
                some = ", ".join(map(str, sorted(lines)[:_SHOWN_LINES]))
                say(f"  not reached: {file}: {some}{', ...' if len(lines) > _SHOWN_LINES else ''}")
        if _short_of(threshold, run):
            complain(f"{run.engine}: {run.percent:.1f} % of the lines are less than {threshold:g} %")


def _short_of(threshold: float, run: Run) -> bool:
    return run.percent is not None and run.percent < threshold


def _json(run: Run) -> dict[str, Any]:
    files = sorted(run.covered.keys() | run.missed.keys())
    return {
        "engine": run.engine,
        "percent": round(run.percent, 2) if run.percent is not None else None,
        "tests": [
            {"package": each.package, "name": each.name, "place": each.place, "passed": not each.why, "why": each.why}
            for each in run.results
        ],
        "files": {
            file: {"reached": sorted(run.covered.get(file, ())), "not_reached": sorted(run.missed.get(file, ()))}
            for file in files
        },
    }
