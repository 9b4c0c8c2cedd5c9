"""`krie policy lint` and `krie policy schemas`."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

import click

from ..config import load_config
from ..errors import ConfigError, ExitCode
from ..output import say, say_for_ci, say_text
from ..plugin.offline import load_plugins
from ..review.findings import ERROR, OPA, REGAL, Report
from ..review.input_schemas import event_schemas
from ..review.lint import lint
from ..review.lint_formats import FORMATS
from ..review.lint_opa import write_schemas
from . import render_lint
from .command import PATH, config_file, config_option
from .render import console, progress

_TEXT, _GITHUB = "text", "github"


@click.command("lint")
@click.argument("paths", nargs=-1, type=PATH)
@config_option
@click.option(
    "--format",
    "format_",
    type=click.Choice([_TEXT, *FORMATS]),
    default=_TEXT,
    show_default=True,
    help="How the report is printed.",
)
@click.option("--json", "format_", flag_value="json", help="The same as --format json.")
@click.option(
    "--write", metavar="FORMAT=FILE", multiple=True, help="Write it into a file, too; may be given several times."
)
@click.option(
    "--require", metavar="TOOLS", default="", help="Fail if these tools cannot check: opa, regal or opa,regal."
)
def policy_lint(
    paths: tuple[Path, ...], config: Path | None, format_: str, write: tuple[str, ...], require: str
) -> None:
    """Check the policies with KRIe, OPA and Regal, and report in one place what is wrong and how to fix it.

    KRIe runs all checks of krie policy check --strict; OPA checks in strict mode, with the types of input; Regal lints
    the folders of policy.paths. PATHS: folders of policies to check instead of those; a copy of KRIe's own policies is
    checked in place of those that ship. Needs no root.

    If opa or regal is not installed, the report says so. Exits with 4 if there is an error, with 0 if there are at most
    warnings.
    """
    targets = [_target(each) for each in write]
    required = [each.strip() for each in require.split(",") if each.strip()]
    if unknown := sorted({*required} - {OPA, REGAL}):
        raise click.UsageError(f"--require: {', '.join(unknown)} is not a known tool; known are {OPA}, {REGAL}")
    path = config_file(config)
    settings = load_config(path)
    loaded, _ = load_plugins(settings, str(path))
    with progress("looking at the policies", quiet=format_ != _TEXT):
        report = lint(settings, path, loaded, required, paths)
    for name, file in targets:
        try:
            file.write_text(FORMATS[name](report), encoding="utf-8", errors="backslashreplace")
        except OSError as error:
            raise ConfigError(str(file), f"cannot be written: {error.strerror}") from error
    _print(report, format_)
    sys.exit(ExitCode.POLICY if report.count(ERROR) else ExitCode.OK)


def _print(report: Report, format_: str) -> None:
    if format_ == _TEXT:
        render_lint.lint(console(), report)
    else:
        shown = FORMATS[format_](report).removesuffix("\n")
        (say_for_ci if format_ == _GITHUB else say_text)(shown)


def _target(text: str) -> tuple[str, Path]:
    name, equals, file = text.partition("=")
    if name not in FORMATS or not equals or not file:
        raise click.UsageError(f"--write: say FORMAT=FILE, where FORMAT is one of {', '.join(FORMATS)}; not {text}")
    return name, Path(file)


@click.command("schemas")
@click.argument("folder", type=PATH)
@config_option
def policy_schemas(folder: Path, config: Path | None) -> None:
    """Write JSON Schemas of input into a folder, one for each kind of event, as opa check --schema FOLDER takes them.

    A rule that is about one kind names its schema in its METADATA: `schemas: [{input: schema.PLUGIN.EVENT}]`.
    """
    path = config_file(config)
    loaded, _ = load_plugins(load_config(path), str(path))
    events = event_schemas(loaded)
    try:
        write_schemas(folder, events)
    except OSError as error:
        raise ConfigError(str(error.filename or folder), f"cannot be written: {error.strerror}") from error
    say(f"{len(events)} schemas are in {folder}")


COMMANDS: Iterable[click.Command] = (policy_lint, policy_schemas)
"""Of `krie policy`."""
