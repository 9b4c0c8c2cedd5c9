"""Benign twins: for what people do every day no rule asks for more than a line, and none of more than low severity.
What a rule is meant to tell or to refuse all the same, workloads.py says.

All plugins observe, and everything that happens while a workload runs counts, whoever did it.
"""

import json
import os
import shutil
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

import pytest
from krie.plugin.installed import available
from krie.testing.agent import Line, RunningAgent
from krie.testing.needs import SAMPLES_VARIABLE
from krie.testing.victims import Victims

from .workloads import WORKLOADS, Workload

pytestmark = [pytest.mark.slow, pytest.mark.needs("guest")]
ROOT = Path(__file__).parents[2]
SEARCHED = "/usr/sbin:/usr/bin:/sbin:/bin"
NOBODY = "setpriv --reuid 65534 --regid 65534 --clear-groups"
CANNOT_BE_RUN = 77
SEEN: Counter[str] = Counter()


@pytest.fixture(scope="module")
def observing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningAgent]:
    folder = tmp_path_factory.mktemp("benign")
    folder.chmod(0o700)
    named = tomllib.loads((ROOT / "krie.toml").read_text())["executables"]
    executables = {name: Path(path).resolve() for name, path in named.items() if path and Path(path).exists()}
    plugins: dict[str, dict[str, Any]] = {
        name: {} for name, entry in available().items() if entry.dist and entry.dist.name == "krie"
    }
    plugins["cfi"]["acts"] = True
    options = {"allow_syscall_tracepoints": False, "ring_mib": 32}
    with RunningAgent(folder, plugins=plugins, executables=executables, agent=options) as agent:
        yield agent


@pytest.fixture(scope="module")
def severities(observing: RunningAgent) -> Mapping[str, str]:
    krie = [sys.executable, "-I", "-c", "from krie.cli.main import main; main()"]
    command = [*krie, "policy", "check", "--json", "--config", str(observing.config)]
    rules = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)["rules"]
    return {each["id"]: each["severity"] for each in rules}


def too_loud(line: Line, severities: Mapping[str, str], workload: Workload) -> list[str]:
    """Rules of a line that ordinary work must not make fire."""
    return [
        each["id"]
        for each in line["decision"]["rules"]
        if each["id"] not in workload.would_refuse.split()
        and (
            each["action"] not in ("allow", "log")
            or (severities.get(each["id"]) != "low" and each["id"] not in workload.may_log.split())
        )
    ]


def run(victims: Victims, command: list[str]) -> tuple[int, str]:
    """Exit status and output."""
    try:
        return 0, victims.execute(command).stdout
    except subprocess.CalledProcessError as error:
        return error.returncode, f"{error.stdout}{error.stderr}"


@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda each: each.name)
def test_ordinary_work_is_silent(
    workload: Workload,
    observing: RunningAgent,
    severities: Mapping[str, str],
    victims: Victims,
    lacks: Callable[[str], NoReturn],
    capsys: pytest.CaptureFixture[str],
) -> None:
    for program in workload.programs.split():
        if shutil.which(program, path=SEARCHED) is None:
            lacks(f"{program}: not installed; tools/setup kernels does it")
    observing.settle()
    before = len(observing.all_lines())
    set_up = [f"PATH={SEARCHED}", f"NOBODY={NOBODY}", f"SAMPLES={os.environ.get(SAMPLES_VARIABLE, '')}"]
    status, said = run(victims, ["env", *set_up, "timeout", "-k", "5", "240", "/bin/sh", "-c", workload.command])
    if status == CANNOT_BE_RUN:
        lacks(said.splitlines()[-1])
    assert status == 0, f"{workload.name} itself failed with status {status}: {said[-2000:]}"
    observing.settle()
    lines = observing.all_lines()[before:]
    seen = Counter(line["kind"] for line in lines)
    SEEN.update(seen)
    with capsys.disabled():
        fired = Counter(each["id"] for line in lines for each in line["decision"]["rules"])
        print(f"\n{workload.name}: {len(lines)} events {dict(seen)}; rules {dict(fired)}")
    loud = [(rules, line) for line in lines if (rules := too_loud(line, severities, workload))]
    shown = [f"{rules} {line['process']['exe']} {line['kind']} {line['event']}" for rules, line in loud[:5]]
    assert not loud, "\n".join([f"{len(loud)} of {len(lines)} lines:", *shown])


def test_silence_was_not_blindness(observing: RunningAgent) -> None:
    for kind in ("ptrace", "bpf", "sysctl_write"):
        assert SEEN[f"runtime_integrity.{kind}"], SEEN
