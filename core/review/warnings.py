"""All warnings of a policy with the plugins and executables of one configuration."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from ..config import Config
from ..events.wire import Chars
from ..plugin.manager import Plugins
from ..plugin.offline import event_types
from ..policy.causes import FAILS, causes_first
from ..policy.embedded import EmbeddedEngine
from ..policy.engine import Package
from ..policy.mistake import Mistake
from ..policy.mistakes import Surroundings, degraded_plugins, mistakes
from ..processes.enrich import document_schema
from ..tier.failing import failing
from ..tier.never import never_fires

_RUNS_ANYTHING = re.compile(
    r"(ba|da|z|k|mk|c|tc|fi)?sh|ash|rbash|busybox|toybox|env|xargs|setarch|nsenter|unshare|chroot|ld(-linux.*)?\.so.*"
    r"|(python|perl|ruby|lua|luajit|php|node|nodejs|tclsh|guile)[\d.]*|java|[gmn]?awk|gdb|gdbserver|lldb|strace|ltrace"
    r"|perf|bpftrace|bpftool|socat"
)
_LOADS_MODULES = re.compile(r"kmod|insmod|modprobe|rmmod")


def warnings(engine: EmbeddedEngine, config: Config, loaded: Plugins) -> list[Mistake]:
    """By place; what only follows from a mistake in a rule comes behind that."""
    types = event_types(loaded)
    around = Surroundings(
        {each.name: document_schema(each, loaded.facts(each.name)) for each in types},
        {each.name: tuple(each.event.PROCESSES) for each in types},
        tuple(config.executables),
        {
            each.name: {own.name: own.wire.count for own in each.own_fields if isinstance(own.wire, Chars)}
            for each in types
        },
    )
    found = mistakes(engine.analysis, engine.sources.data, around)
    tools = general_tools(config.executables, config.enforcement.protected)
    tried = {each.rule: each for each in [*never_fires(engine, types), *failing(engine, types)]}
    told = {each.rule for each in found if each.code == "meaning"}  # that is why it fails, where it does
    found += [each for each in tried.values() if each.code != FAILS or each.rule not in told]
    found += slow_packages(engine.packages, engine.tried_s, config.policy.decision_ms)
    return [*degraded_plugins(loaded.degraded), *causes_first(sorted([*found, *tools]))]


def slow_packages(packages: Iterable[Package], tried_s: Mapping[str, float], decision_ms: int) -> Iterator[Mistake]:
    """Packages that take longer than a decision may: each of theirs would be ended, and `policy.on_error` decide.

    `tried_s`: CPU time of one decision about an event that says nothing, s; by the package's name.
    """
    for each in packages:
        if tried_s[each.name] * 1000 > decision_ms:
            what = f"{each.name} took {tried_s[each.name]:.1f} s of CPU for an empty event"
            fix = f"make its rules cheaper: no decision gets more than {decision_ms} ms (policy.decision_ms)"
            yield Mistake(each.rules[0].place, "slow", "", what, fix)


def general_tools(executables: Mapping[str, str], protected: Iterable[str]) -> Iterator[Mistake]:
    """Entries of krie.toml that let whoever may execute a general tool do what its name permits.

    What loads modules counts only where it is protected: rules look at the module, protection looks at nothing.
    """
    for name, path in executables.items():
        if tool := _matching(path, _RUNS_ANYTHING):
            what = f"{tool} does what its arguments say, so rules that trust {name!r} trust everybody"
            yield Mistake(f"executables.{name}", "general_tool", "", what, "name a program that does one thing")
    for path in protected:
        if tool := _matching(path, _RUNS_ANYTHING) or _matching(path, _LOADS_MODULES):
            what = f"{tool} does what its arguments say: whoever executes {path} is never refused, poisoned or killed"
            yield Mistake("enforcement.protected", "general_tool", "", what, "protect a program that does one thing")


def _matching(path: str, tools: re.Pattern[str]) -> str:
    """The tool's name, which may be that of what a link leads to; empty where it is none."""
    names = (Path(each).name for each in (path, os.path.realpath(path)))
    return next((each for each in names if tools.fullmatch(each)), "")
