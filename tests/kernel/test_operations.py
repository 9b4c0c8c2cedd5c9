"""The operation events of runtime_integrity are about others."""

from krie.testing.agent import RunningAgent

from .operations import PREFIX


def test_the_agents_own_activity_is_left_out(agent: RunningAgent) -> None:
    agent.settle()
    for kind in ("module_load", "module_unload", "socket_filter", "perf_event_open", "probe_register"):
        assert agent.lines(f"{PREFIX}{kind}", lambda line: line["process"]["tgid"] == agent.process.pid) == []
