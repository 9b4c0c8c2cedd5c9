"""Attaching again what somebody detached, disabled or took out by a descriptor: root gets one while nothing guards.

Only of what changes no breakpoint and no call in the kernel's text: where one is gone that the kernel still counts on,
attaching again could stop the machine. Programs at cgroups change a static key, which is looked at first. What a switch
of the whole kernel silenced comes back with the switch.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

from ..errors import KernelError
from ..events.numbers import ONLY, WORD
from ..kernel import bpf, mounts
from ..kernel.attach import KPROBES, Places, attach, put
from ..kernel.perf_event import enable
from ..kernel.program import AttachType, Program
from ..loader.launcher import LoadedSet
from ..plugin.report import ProbeReport
from ..tree import Tree
from .ground import Ground

_EVENTS = KPROBES | {AttachType.TRACEPOINT, AttachType.PERF_EVENT}
"""By perf events, which who has a descriptor disables."""


def reattach(
    reports: Iterable[ProbeReport],
    loaded: LoadedSet,
    ground: Ground,
    cgroup2: Callable[[], Tree | None] = mounts.cgroup2,
) -> dict[str, str]:
    """Attach the programs of silent probes again, as far as that is safe; returns why not, by probe.

    `ground`: knows the static key that each of these changes, since it holds their links, and has the new ones kept.

    A program that was attached all the same stays attached throughout. `cgroup2`: opens that hierarchy.
    """
    failed: dict[str, str] = {}
    done: set[str] = set()  # several probes may share a program
    for report in reports:
        if report.state != "silent" or report.alternative is None:
            continue
        for program in report.alternative.programs:
            links = loaded.descriptors.get(f"link:{program.label}", ())
            if program.attach is not AttachType.CGROUP_SYSCTL or not links or program.label in done:
                continue
            done.add(program.label)
            if why := ground.obstacle():
                failed[report.name] = why
                continue
            try:
                _replace(program, loaded.descriptors[f"program:{program.label}"][0], links, ground, cgroup2)
            except (KernelError, OSError) as error:
                failed[report.name] = str(error)
    return failed


def renew(reports: Iterable[ProbeReport], loaded: LoadedSet) -> list[str]:
    """Put right what no canary need show, of all probes: perf events that are disabled, which nobody can ask for, and
    programs that others no longer go on to; returns the labels of these. Raises `KernelError`, `OSError`.
    """
    maps = {name.removeprefix("map:"): each[0] for name, each in loaded.descriptors.items() if name[:4] == "map:"}
    programs = {each for report in reports if report.alternative is not None for each in report.alternative.programs}
    missing = []
    for program in sorted(programs, key=lambda each: each.label):
        if program.through and (own := loaded.descriptors.get(f"program:{program.label}")):
            if bpf.lookup(maps[program.through], ONLY, WORD.size) is None:
                put(program, own[0], maps)
                missing.append(program.label)
        elif program.attach in _EVENTS:
            for each in loaded.descriptors.get(f"link:{program.label}", ()):
                enable(each)
    return missing


def _replace(
    program: Program, descriptor: int, links: tuple[int, ...], ground: Ground, cgroup2: Callable[[], Tree | None]
) -> None:
    """Put new links in the place of the old ones, under the same descriptors."""
    tree = cgroup2()
    try:
        new = attach(program, descriptor, Places(Path(), tree, lambda _: 0))
    finally:
        if tree is not None:
            tree.close()
    for old, made in zip(links, new, strict=True):
        try:
            ground.replace(old, made)
        except OSError:
            os.close(made)
            raise
