"""Everything that can be said of a policy before it is in force, by everybody who has something to say."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from ..config import Config
from ..errors import PolicyError
from ..plugin.installed import available
from ..plugin.manager import Plugins
from ..policy.embedded import EmbeddedEngine
from ..policy.folders import is_configured, policy_folders
from ..policy.mistake import Mistake
from ..policy.snapshot import place_of
from ..policy.sources import PolicySources
from ..policy.tool import ToolError, find
from ..tier.subject import subject_of
from ..tier.tried import sources_of, tried_engine
from .chosen import is_copy_of_shipped, of_folders, packages_of
from .findings import KRIE, OPA, REGAL, WARNING, Finding, Looked, Place, Report, near, report_of, said_of
from .input_schemas import event_schemas
from .lint_opa import opa_findings
from .lint_regal import regal_findings
from .warnings import warnings

_SHIPPED = Path(str(files("krie.policies"))).resolve()
_AGENT = "fix this first: the rest of the policy was not checked, and no agent loads it"


@dataclass(frozen=True, slots=True)
class _Own:
    """What KRIe itself makes of a policy, as far as it got."""

    findings: list[Finding]
    sources: PolicySources | None = None
    engine: EmbeddedEngine | None = None
    notes: tuple[str, ...] = ()


def lint(
    config: Config, place: Path, loaded: Plugins, required: Collection[str] = (), named: Sequence[Path] = ()
) -> Report:
    """`place`: the configuration's path; `required`: tools that must look; `named`: folders instead of policy.paths.

    Raises `ConfigError`, `KernelError`.
    """
    config = with_paths(config, named)
    settings = Place(near(str(place)))
    every = policy_folders(config, loaded)
    folders = [each for each in every if is_configured(each, config) or not _is_shipped(each)]
    own = _own(config, loaded, settings, named)
    findings = [*own.findings, *(each for folder in folders for each in links_out(folder))]

    def asked(tool: str, configured: str, ask: Callable[[str], list[Finding]], nothing: str) -> Looked:
        program = configured or find(tool, place.absolute().parent)
        if not program:
            return Looked(tool, why=f"no {tool} is installed, neither in PATH nor in .cache/tools beside {place.name}")
        if nothing:
            return Looked(tool, program, nothing)
        try:
            findings.extend(ask(program))
        except ToolError as error:
            return Looked(tool, program, str(error))
        return Looked(tool, program)

    sources, packages = own.sources, own.engine.packages if own.engine is not None else ()
    missing = next((place_of(each) for each in folders if not each.is_dir()), "")
    events = event_schemas(loaded)
    looked = (
        Looked(KRIE),
        asked(
            OPA,
            config.policy.opa,
            lambda opa: opa_findings(opa, sources, packages, events) if sources is not None else [],
            "" if sources is not None else "the policy could not be read",
        ),
        asked(
            REGAL,
            "",
            lambda regal: regal_findings(regal, folders),
            f"{near(missing)} is not a folder"
            if missing
            else ("" if folders else "there is nothing but what KRIe ships: policy.paths names no folder"),
        ),
    )
    revision = sources.revision if sources is not None else ""
    return report_of(revision, looked, findings, required, settings, own.notes)


def _own(config: Config, loaded: Plugins, settings: Place, named: Sequence[Path]) -> _Own:
    """What `krie policy check --strict` tells."""

    def refused(error: PolicyError) -> Finding:
        place, what = said_of(error.headline, settings)
        return Finding(place, KRIE, "refused", what, _AGENT)

    alone = config.model_copy(update={"policy": config.policy.model_copy(update={"opa": ""})})  # it is asked later
    try:
        sources, notes = _sources(alone, loaded, named)
    except PolicyError as error:
        return _Own([refused(error)])
    try:
        engine = tried_engine(alone, loaded, sources)
    except PolicyError as error:
        return _Own([refused(error)], sources, notes=notes)
    found = [_finding(each, settings) for each in warnings(engine, alone, loaded)]
    try:
        subject_of(alone, loaded, engine)
    except PolicyError as error:  # a rule must be inline, and cannot be
        found.append(refused(error))
    return _Own(found, sources, engine, notes)


def _sources(config: Config, loaded: Plugins, named: Sequence[Path]) -> tuple[PolicySources, tuple[str, ...]]:
    """What is to be examined, with notes. Raises `PolicyError`.

    A copy of KRIe's own rules is examined in their place: beside them, no agent takes it. Nothing is known of the
    events of a plugin that is not loaded, so its rules would seem to be wrong throughout.
    """
    if not any(each.is_dir() and is_copy_of_shipped(each) for each in named):
        return sources_of(config, loaded), ()
    silent = packages_of(
        _SHIPPED / name for name in available() if name not in config.plugins and (_SHIPPED / name).is_dir()
    )
    made = of_folders(named, config, loaded, silent)
    left_out = sorted(silent & packages_of(named))
    told = (f"no plugin of package {each} is loaded: krie and opa did not check its rules" for each in left_out)
    return made.sources, (*made.notes, *told)


def _finding(mistake: Mistake, settings: Place) -> Finding:
    content = mistake.to_json()
    if not content["line"]:  # of a plugin, or of a program that the configuration names
        return Finding(settings, KRIE, mistake.code, f"{mistake.place}: {mistake.what}", mistake.fix, rule=mistake.rule)
    place = Place(near(str(content["file"])), int(str(content["line"])), int(str(content["column"])))
    return Finding(place, KRIE, mistake.code, mistake.what, mistake.fix, rule=mistake.rule)


def _is_shipped(folder: Path) -> bool:
    return folder.resolve().is_relative_to(_SHIPPED)


def links_out(folder: Path) -> Iterator[Finding]:
    """Links in a folder of policies that lead out of it: what is reviewed is then not what decides."""
    real = folder.resolve()
    for above, folders, names in os.walk(folder):
        folders[:] = sorted(each for each in folders if not each.startswith((".", "_")))
        for name in sorted([*folders, *(each for each in names if each.endswith((".rego", ".json")))]):
            path = Path(above, name)
            if path.is_symlink() and not (leads := path.resolve()).is_relative_to(real):
                what = f"is a link that leads out of its folder of policies, to {place_of(leads)}"
                place = Place(near(place_of(path)), 1)
                yield Finding(place, KRIE, "link", what, "copy what it leads to, or name that folder", WARNING)


def with_paths(config: Config, paths: Sequence[Path]) -> Config:
    """The same configuration with these folders for its own, if there are any."""
    if not paths:
        return config
    update = {"paths": tuple(str(each.absolute()) for each in paths), "bundle": ""}
    return config.model_copy(update={"policy": config.policy.model_copy(update=update)})
