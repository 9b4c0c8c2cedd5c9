"""Every exit code that the manual has, from a command that ends with it."""

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from krie.agent.lock import hold
from krie.errors import ExitCode
from krie.events.agent import Loss
from krie.events.event import EventType
from krie.processes.enrich import PROCESS_NAMES
from krie.testing.events import build

_RUN = "import sys; sys.argv[0] = 'krie'; from krie.cli.main import main; main()"
_BUG = f"import krie.cli.plugin_list as module; module.installed = lambda _: 1 / 0; {_RUN}"
_TAMPERED = (
    "import krie.plugin.integrity as module; from krie.plugin.integrity import Check, Difference; "
    f"module.look = lambda _: [Check('text', 1, 'image', differences=(Difference(1, 'a', '00', '01', ''),))]; {_RUN}"
)
_DEGRADED = (
    "import krie.plugin.manager as module; from krie.errors import PluginError; "
    "failing = lambda *_: (_ for _ in ()).throw(PluginError('runtime_integrity', 'this one does not work')); "
    f"module.require_package_trusted = failing; {_RUN}"
)
_NOT_ROOT = f"import os; os.geteuid = lambda: 1000; {_RUN}"


@contextmanager
def another_agent(folder: Path) -> Iterator[None]:
    descriptor = hold(folder / "run")
    yield
    os.close(descriptor)


@contextmanager
def broken_rule(folder: Path) -> Iterator[None]:
    (folder / "rules" / "x.rego").write_text("package krie.x\n\nrules contains 1 if nowhere\n")
    yield


@contextmanager
def nothing(folder: Path) -> Iterator[None]:
    yield


@contextmanager
def recorded(folder: Path) -> Iterator[None]:
    """A journal with a line, and beside the rules in force others, one of which would have fired."""
    process = dict.fromkeys(PROCESS_NAMES - {"ancestors"}, 0)
    line = {"v": 1, "kind": "krie.loss", "event": EventType(Loss).json(build(Loss)), "process": process, "decision": {}}
    (folder / "journal.jsonl").write_text(json.dumps(line) + "\n")
    (folder / "torn.jsonl").write_text('{"v":1,')
    (folder / "other").mkdir()
    rule = 'rules contains {"id": "X", "action": "log"} if input.event.kind == "krie.loss"'
    (folder / "other" / "x.rego").write_text(f"package krie.x\n\n{rule}\n")
    yield


def few_files() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (6, 6))


@dataclass(frozen=True)
class Case:
    arguments: tuple[str, ...]
    said: str
    program: str = _RUN
    before: Callable[[Path], AbstractContextManager[None]] = nothing
    limit: Callable[[], None] | None = None


CASES = {
    ExitCode.OK: Case(("plugins",), ""),
    ExitCode.INTERNAL: Case(("plugins",), "krie: this is a bug in KRIe\n  | Traceback (most recent", _BUG),
    ExitCode.USAGE: Case(("events", "--config", "none.toml"), "krie: none.toml: cannot be read: No such file"),
    ExitCode.KERNEL: Case(("doctor",), "needs root; use sudo", _NOT_ROOT),
    ExitCode.POLICY: Case(("policy", "check"), "x.rego:3:", before=broken_rule),
    ExitCode.DEGRADED: Case(("config", "check"), "this one does not work", _DEGRADED),
    ExitCode.ALREADY_RUNNING: Case(("run",), "another agent is running on this machine", before=another_agent),
    ExitCode.LAB: Case(("lab", "fetch", "debian-0"), "debian-0"),
    ExitCode.NOT_RUNNING: Case(("status",), "no agent is running"),
    ExitCode.TAMPERED: Case(("integrity",), "", _TAMPERED),
    ExitCode.EXHAUSTED: Case(("policy", "eval"), "ulimit -n", limit=few_files),
    ExitCode.DIFFERENT: Case(("policy", "replay", "--against", "other", "journal.jsonl"), "", before=recorded),
    ExitCode.UNDECIDED: Case(("policy", "replay", "torn.jsonl"), "", before=recorded),
}


def test_every_exit_code_has_a_case_and_a_number_of_its_own() -> None:
    assert set(CASES) == set(ExitCode)
    assert [int(each) for each in ExitCode] == list(range(len(ExitCode)))


@pytest.mark.parametrize("code", ExitCode, ids=lambda code: code.name)
def test_a_command_ends_with_it(code: ExitCode, tmp_path: Path) -> None:
    case = CASES[code]
    tmp_path.chmod(0o700)
    (tmp_path / "rules").mkdir(mode=0o700)
    keys = f"[agent]\nrun_dir = '{tmp_path}/run'\n[policy]\nopa = ''\npaths = ['{tmp_path}/rules']\n"
    (tmp_path / "krie.toml").write_text(keys + "[plugins.runtime_integrity]\n")
    (tmp_path / "krie.toml").chmod(0o600)
    with case.before(tmp_path):
        result = subprocess.run(
            [sys.executable, "-I", "-c", case.program, *case.arguments],
            cwd=tmp_path,
            capture_output=True,
            input='{"kind": "krie.loss", "event": {}}',
            text=True,
            preexec_fn=case.limit,
            timeout=120,
        )
    assert result.returncode == code, result.stderr
    assert case.said in result.stderr


@pytest.mark.parametrize(
    ("ends", "status"), [("exit 0", 0), ("exit 6", 6), ("kill -KILL $$", 137), ("printf half; kill -TERM $$", 143)]
)
def test_on_a_terminal_it_is_the_agents(ends: str, status: int) -> None:
    """In a process of its own, since it changes how signals are handled."""
    code = (
        f"import sys; from krie.cli.terminal import run_on_terminal; sys.exit(run_on_terminal(['sh', '-c', {ends!r}]))"
    )
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (status, "")


@pytest.mark.parametrize(
    "arguments",
    [
        ("nosuch",),
        ("run", "--nosuch"),
        ("clear",),
        ("cfi", "diff"),
        ("lab", "run"),
        ("cfi", "explain", "f", "--kernel"),
    ],
)
def test_a_wrong_command_line_is_no_bug(arguments: tuple[str, ...], tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-I", "-c", _RUN, *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert result.returncode == ExitCode.USAGE, result.stderr
    assert "Traceback" not in result.stderr
