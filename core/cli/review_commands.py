"""`krie policy replay` and `krie policy diff`: what a change of the policy would do."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import click

from ..config import Config, load_config
from ..decision import Action
from ..errors import ConfigError, ExitCode
from ..output import say_text
from ..plugin.manager import Plugins
from ..plugin.offline import event_types, load_plugins
from ..review import difference_report
from ..review.apart import compared_apart
from ..review.chosen import Chosen, chosen, in_force
from ..review.compared import Tally
from ..review.difference import Comparer
from ..review.input_schemas import event_schemas
from ..review.journal_reader import STANDARD_INPUT, JournalReader, Piece, in_order, rotated
from ..review.replay import Side, report_of
from ..review.replay_pool import Pool
from ..review.report import ReviewReport
from ..review.report_text import FORMATS
from ..review.sides import sides
from ..tier.placement import Tiers
from ..tier.subject import subject_of
from ..tier.tried import tried_engine
from . import render_review
from .command import PATH, config_file, config_option
from .render import console

format_option = click.option(
    "--format",
    "shape",
    type=click.Choice(["table", *FORMATS]),
    default="table",
    help="How to print what was found.",
    show_default=True,
)


@click.command("replay")
@click.argument("journal", type=PATH, nargs=-1, required=True)
@click.option(
    "--against",
    metavar="POLICY",
    help="The new policy: a folder, a bundle, or a revision of git. Without it, what the configuration has is tried "
    "against what was recorded.",
)
@click.option("--rotated", "with_rotated", is_flag=True, help="Also read each journal's rotated files.")
@click.option("--jobs", type=click.IntRange(1, 256), help="Processes that decide; as many as there are cores.")
@config_option
@format_option
def policy_replay(
    journal: tuple[Path, ...],
    against: str | None,
    with_rotated: bool,
    jobs: int | None,
    config: Path | None,
    shape: str,
) -> None:
    """Decide recorded events again, by the configured policy and by another one, and show what differs.

    JOURNAL: files of the journal, compressed or not, rotated ones in any order; - is standard input. Needs no root.

    Exit codes: 0 nothing differs; 11 something does;
    12 nothing does, but some lines could not be decided again: the report says which and why.
    """
    path = config_file(config)
    settings = load_config(path)
    loaded, _ = load_plugins(settings, str(path))
    old = in_force(settings, loaded)
    new = chosen(against, settings, loaded) if against is not None else old
    sides = _tried(settings, loaded, old, new)
    reader = JournalReader(in_order(each for given in journal for each in _files(given, with_rotated)))
    with ExitStack() as stack:
        stack.callback(reader.close)
        pool = Pool(
            old.sources, new.sources, settings.policy, event_schemas(loaded), jobs or len(os.sched_getaffinity(0))
        )
        stack.callback(pool.close)
        pool.start()
        tally = _replayed(pool, reader)
    if not tally.lines:
        raise ConfigError(", ".join(map(str, reader.paths)), "has no line: nothing was decided")
    report = report_of(tally, *sides, reader.paths, dict.fromkeys((*old.notes, *new.notes)))
    show(report, shape)
    sys.exit(_exit_code(tally))


def _files(given: Path, with_rotated: bool) -> list[Path]:
    return rotated(given) if with_rotated and given != STANDARD_INPUT else [given]


def _tried(config: Config, plugins: Plugins, *policies: Chosen) -> tuple[Side, Side]:
    old, new = (
        Side(each.name, each.revision, tried_engine(config, plugins, each.sources).packages, each.commit)
        for each in policies
    )
    return old, new


def _replayed(pool: Pool, reader: JournalReader) -> Tally:
    with render_review.bar("deciding", reader.total) as tell:

        def pieces() -> Iterator[Piece]:
            for piece in reader.pieces():
                tell(reader.done)
                yield piece

        return pool.run(pieces(), lambda file, line: f"{reader.paths[file]}:{line}")


def _exit_code(tally: Tally) -> ExitCode:
    if tally.different or tally.in_force_then > tally.reproduced:
        return ExitCode.DIFFERENT
    return ExitCode.UNDECIDED if tally.undecided else ExitCode.OK


@click.command("diff")
@click.argument("old")
@click.argument("new", required=False)
@click.option(
    "--tries",
    type=click.IntRange(0, 1_000_000),
    default=2000,
    help="Inputs to try for each rule and kind that cannot be compared exactly.",
    show_default=True,
)
@click.option("--seed", type=int, default=0, help="Try other inputs.", show_default=True)
@config_option
@format_option
def policy_diff(old: str, new: str | None, tries: int, seed: int, config: Path | None, shape: str) -> None:
    """Show for which inputs two policies decide differently, and what else differs in their rules.

    OLD, NEW: a folder, a bundle, or a revision of git; without NEW, what the configuration has in force. Exact and
    complete for rules that compare fields with constants, as all do that the kernel decides; others are tested with
    samples, and the report says so. Needs no root.

    Exit codes: 0 nothing differs; 11 something does.
    """
    path = config_file(config)
    settings = load_config(path)
    loaded, _ = load_plugins(settings, str(path))
    first = chosen(old, settings, loaded)
    second = chosen(new, settings, loaded) if new is not None else in_force(settings, loaded)
    engines = [tried_engine(settings, loaded, each.sources) for each in (first, second)]
    types = list(event_types(loaded))
    facts = {each.name: loaded.facts(each.name) for each in types}
    with render_review.waiting_for("comparing the policies", quiet=shape != "table"):
        pair = sides(engines[0], engines[1], Action[settings.policy.on_error.upper()])
        found = compared_apart(Comparer(*pair, types, facts, tries, seed), settings.policy)
        before, after = (subject_of(settings, loaded, each).tiers for each in engines)
    rules = {rule.id: rule for engine in engines for rule in engine.rules}
    tiers = difference_report.TiersSaid(tier_changes(before, after), tiers_of(before, after))
    show(difference_report.report_of(found, first, second, rules, tiers), shape)
    sys.exit(ExitCode.OK if found.is_empty else ExitCode.DIFFERENT)


def tier_changes(old: Tiers, new: Tiers) -> list[str]:
    """Which rules the kernel decides now, and which it does no longer."""
    before, after = ({(each.rule.id, each.kind): each for each in tiers.placements} for tiers in (old, new))
    found = []
    for rule, kind in sorted(before.keys() & after.keys()):
        was, now = before[rule, kind], after[rule, kind]
        if was.tier != now.tier:
            reason = f": {now.why}" if now.why else ""
            found.append(
                f"{rule} is decided by the {now.tier} tier for {kind}, and no longer by the {was.tier} tier{reason}"
            )
    return found


def tiers_of(old: Tiers, new: Tiers) -> dict[str, str]:
    """By rule: who decides it now, or did where it is gone, and for which kinds where that is not one for all."""
    by_rule: dict[str, dict[str, str]] = {}
    for tiers in (old, new):
        for each in tiers.placements:
            by_rule.setdefault(each.rule.id, {})[each.kind] = str(each.tier)
    found = {}
    for rule, by_kind in by_rule.items():
        kinds: dict[str, list[str]] = {}
        for kind, tier in sorted(by_kind.items()):
            kinds.setdefault(tier, []).append(kind)
        found[rule] = (
            next(iter(kinds))
            if len(kinds) == 1
            else "; ".join(f"{tier} for {', '.join(some)}" for tier, some in sorted(kinds.items()))
        )
    return found


def show(report: ReviewReport, shape: str) -> None:
    """Print a report."""
    if shape == "table":
        render_review.report(console(), report)
    else:
        say_text(FORMATS[shape](report))
