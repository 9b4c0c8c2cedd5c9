"""Root turns kprobes and ftrace off by the kernel's own files: that is told as what it is, left so, and harms nobody.

What leaves ftrace while it is off makes it turn itself off for good later, with a WARNING.
"""

import contextlib
import signal
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NoReturn

import pytest
from krie.errors import ExitCode
from krie.testing.agent import AgentFailed, RunningAgent

from .hijacks import places_in
from .test_switches import KPROBES, TRACED, healthy, is_forged, keepers, kernel_log, no_keeper_is_left, use

pytestmark = pytest.mark.needs("guest", "kprobe")
SWITCHES = {"kprobes": KPROBES / "enabled", "ftrace": Path("/proc/sys/kernel/ftrace_enabled")}
TRACING = TRACED.parent
REFUSED = "ftrace_switch: this kernel does not let it be switched off now"
TRACED_FUNCTION = "commit_creds"


@pytest.fixture(scope="module")
def options(alone: None, agent_options: Mapping[str, Any]) -> dict[str, Any]:
    plugins = {name: agent_options["plugins"][name] for name in ("runtime_integrity", "smep_smap")}
    return {"plugins": plugins, "agent": {"scan_interval_s": 3600, "roaming_interval_s": 3600}}


@contextlib.contextmanager
def off(*names: str) -> Iterator[list[str]]:
    """Gives those that the kernel lets be off: some keep ftrace on while BPF's programs use it."""
    done = []
    try:
        for name in names:
            with contextlib.suppress(OSError):
                SWITCHES[name].write_text("0\n")
                done.append(name)
        yield done
        assert [SWITCHES[name].read_text() for name in done] == ["0\n"] * len(done)  # nobody turned them on
    finally:
        for name in reversed(done):
            SWITCHES[name].write_text("1\n")


def warnings() -> int:
    """Those of ftrace and kprobes that the kernel's log still has."""
    return sum("WARNING:" in line and ("ftrace" in line or "kprobes" in line) for line in kernel_log())


def ftrace_works() -> None:
    """The end of its last user is where the kernel looks for what others left behind."""
    before = warnings()
    (TRACING / "set_ftrace_filter").write_text(f"{TRACED_FUNCTION}\n")
    (TRACING / "current_tracer").write_text("function\n")
    use()
    assert TRACED_FUNCTION in (TRACING / "trace").read_text()
    (TRACING / "current_tracer").write_text("nop\n")
    (TRACING / "set_ftrace_filter").write_text("\n")  # ENODEV once it is off for good
    assert warnings() <= before


def test_no_agent_starts_while_something_is_off(
    options: dict[str, Any], tmp_path: Path, lacks: Callable[[str], NoReturn]
) -> None:
    before = warnings()
    for names, file in ((["kprobes"], "kprobes/enabled"), (["kprobes", "ftrace"], "/proc/sys/kernel/ftrace_enabled")):
        folder = tmp_path / file.replace("/", "_")
        folder.mkdir(mode=0o700)
        with off(*names) as done:
            if "ftrace" in names and done == ["kprobes"]:
                lacks(REFUSED)
            assert done == names
            agent = RunningAgent(folder, **options)
            with pytest.raises(AgentFailed, match=f"attaching probes; .*write 1 to {file}"):
                agent.__enter__()
            assert agent.process.returncode == ExitCode.DEGRADED
    healthy()
    ftrace_works()
    assert warnings() <= before


@pytest.mark.long
def test_an_agent_whose_switches_are_turned_off(options: dict[str, Any], tmp_path: Path) -> None:
    before = warnings()
    tmp_path.chmod(0o700)
    agent = RunningAgent(tmp_path, **options).__enter__()
    with off("kprobes"):
        agent.wait("krie.guarded", lambda line: line["event"]["attempt"] == "kprobes_off")
        agent.process.send_signal(signal.SIGHUP)
        agent.wait("krie.policy")
        use()
        with off("ftrace") as done:
            assert agent.stop() == 0
            said = "keeps the probes until they can be removed: kernel.ftrace_enabled is 0"
            assert (said in agent.stderr) is ("ftrace" in done)
            assert keepers() or not done
    assert not agent.lines("krie.guarded", is_forged)
    no_keeper_is_left()
    assert not places_in("commit_creds")
    healthy()
    ftrace_works()
    assert warnings() <= before
