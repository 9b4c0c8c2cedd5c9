"""A third party's plugin, and every way in which its code can fail."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import pytest
from krie.kernel.attach import Places, online_cpus
from krie.kernel.btf import Btf
from krie.kernel.features import Features, try_features
from krie.kernel.program import AttachType
from krie.testing.agent import AgentFailed, Line, RunningAgent, fired

from . import example

RAW = ("raw_tracepoint", "sched_process_exec", "example_f", 0)
BOTH: dict[str, dict[str, Any]] = {"example": {}, "runtime_integrity": {}}


@contextmanager
def running(folder: Path, plugin: Path, **options: Any) -> Iterator[RunningAgent]:
    folder.chmod(0o700)
    with RunningAgent(folder, **{"plugins": BOTH, "plugin_folders": [plugin], **options}) as agent:
        yield agent


def _on_cpu(cpu: int, line: Line) -> bool:
    return bool(line["event"]["count"] == cpu + 1)


@pytest.mark.once
def test_a_perf_event_runs_on_each_cpu(tmp_path: Path) -> None:
    source = example.seen("example_f", value="bpf_get_smp_processor_id() + 1")
    plugin = example.write(tmp_path / "plugin", {"seen": ("perf_event", "10000000", "example_f", 0)}, source)
    with running(tmp_path, plugin) as agent:
        for cpu in online_cpus():
            os.sched_setaffinity(0, {cpu})
            example.be_busy()
            agent.wait("example.seen", partial(_on_cpu, cpu))
        os.sched_setaffinity(0, set(online_cpus()))


FAILURES = [
    (
        "int example_f(void *ctx) { return nothing; }",
        "example.bpf.c:1:35: error: use of undeclared identifier 'nothing'",
    ),
    ("int example_g(void *ctx) { return 0; }", "the C source has no function example_f"),
    ("int example_f(void *ctx) { return *(int *)ctx->missing; }", "example.bpf.c:1:"),
    # BCC's rewriter fails an assertion on this, which ends its process.
    (
        "int example_f(void *ctx) { char text[8] = {}; krie_ring.ringbuf_output(text, 8, 0); return 0; }",
        "brings the compiler down: the loader was ended by SIG",
    ),
    ("int example_f(u64 *ctx) { return *(int *)(ctx[0]); }", "loading program example_f: EACCES (Permission denied)"),
]


@pytest.mark.once
@pytest.mark.parametrize(("source", "message"), FAILURES, ids=["typo", "no-function", "type", "crash", "verifier"])
def test_a_broken_plugin_is_named_and_the_others_work(tmp_path: Path, source: str, message: str) -> None:
    plugin = example.write(tmp_path / "plugin", {"seen": RAW}, source)
    with running(tmp_path, plugin) as agent:
        states = {line["event"]["probe"]: line["event"]["state"] for line in agent.lines("krie.probe")}
        assert message in agent.stderr
    assert states["seen"] == "missing"
    assert {states[name] for name in ("ptrace", "bpf", "sysctl_write", "fork", "exec", "exit")} == {"alive"}


@pytest.mark.once
def test_the_verifiers_verdict_comes_first(tmp_path: Path) -> None:
    source = "int example_f(u64 *ctx) { return *(int *)(ctx[0]); }"
    plugin = example.write(tmp_path / "plugin", {"seen": RAW}, source)
    with running(tmp_path, plugin) as agent:
        (probe,) = agent.lines("krie.probe", lambda line: line["event"]["plugin"] == "example")
    assert "invalid mem access" in probe["event"]["reason"]


@pytest.mark.once
def test_a_compiler_that_hangs_is_ended(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "never")
    plugin = example.write(
        tmp_path / "plugin", {"seen": RAW}, f'#include "{tmp_path}/never"\n' + example.seen("example_f")
    )
    with running(tmp_path, plugin, agent={"loader_timeout_s": 40}) as agent:
        assert "sensor example brings the compiler down: the loader gave no answer for 40 s" in agent.stderr
        states = {line["event"]["probe"]: line["event"]["state"] for line in agent.lines("krie.probe")}
    assert (states["seen"], states["bpf"]) == ("missing", "alive")


@pytest.mark.once
def test_a_broken_plugin_that_is_required_ends_the_agent(tmp_path: Path) -> None:
    plugin = example.write(tmp_path / "plugin", {"seen": RAW}, FAILURES[0][0])
    plugins = {"example": {"required": True}}
    with (
        pytest.raises(AgentFailed, match=r"(?s)plugin example: .*example.bpf.c:1:35"),
        running(tmp_path, plugin, plugins=plugins),
    ):
        pass


@pytest.mark.once
def test_a_plugin_that_others_could_change_is_not_imported(tmp_path: Path) -> None:
    plugin = example.write(tmp_path / "plugin", {"seen": RAW}, example.seen("example_f"))
    (plugin / "example_plugin.py").chmod(0o666)
    with (
        pytest.raises(AgentFailed, match=r"example_plugin.py: can be changed by other users: chmod go-w"),
        running(tmp_path, plugin),
    ):
        pass


@pytest.mark.once
def test_a_canary_that_never_arrives_is_no_life(tmp_path: Path) -> None:
    never = ("raw_tracepoint", "oom_score_adj_update", "example_f", 0)
    plugin = example.write(tmp_path / "plugin", {"seen": never}, example.seen("example_f"), canary="pass")
    with running(tmp_path, plugin) as agent:
        (probe,) = agent.lines("krie.probe", lambda line: line["event"]["plugin"] == "example")
    assert probe["event"]["state"] == "missing"
    assert (
        "only: attached, but its canary never arrived: raw_tracepoint oom_score_adj_update" in probe["event"]["reason"]
    )
    assert fired(probe) == [("AGENT002", "log")]


@pytest.mark.once
def test_a_probe_that_burdens_every_system_call_needs_leave(tmp_path: Path) -> None:
    plugin = example.write(tmp_path / "plugin", {"seen": RAW}, example.seen("example_f"))
    with running(tmp_path, plugin, agent={"allow_syscall_tracepoints": False}) as agent:
        lines = agent.lines("krie.probe", lambda line: line["event"]["probe"] == "bpf")
        for line in lines:
            assert line["event"]["state"] in {"alive", "missing"}
            if line["event"]["state"] == "missing":
                wanted = "makes every system call slower; allow it with agent.allow_syscall_tracepoints"
                assert wanted in line["event"]["reason"]
        assert lines


def test_features_are_tried(features: Features) -> None:
    assert features.release == os.uname().release
    assert not {AttachType.RAW_TRACEPOINT, AttachType.CGROUP_SYSCTL, AttachType.PERF_EVENT} & features.refused.keys()
    nowhere = Places(Path("/nowhere"), None, lambda _: 0)
    refused = try_features(nowhere, Btf()).refused
    assert "this kernel has no cgroup v2" in refused[AttachType.CGROUP_SYSCTL]
    assert "this kernel's BTF has no function bpf_lsm_bpf" in refused[AttachType.LSM]


def test_programs_follow_the_current_task_without_a_helper(
    features: Features, lacks: Callable[[str], NoReturn]
) -> None:
    """Else all records are dearer, and nothing else would tell: both ways say the same."""
    if not features.task_btf:
        lacks("task_btf: programs need a helper for each pointer they follow")
