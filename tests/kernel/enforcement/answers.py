"""What an enforcing agent tells, and answers."""

from typing import Any

from krie.agent.admin import ask
from krie.testing.agent import Line, RunningAgent


def of(agent: RunningAgent, tgid: int, kind: str) -> list[Line]:
    """Lines of a kind about a process, with all that happened before this call."""
    agent.settle()
    return agent.lines(kind, lambda line: line["process"]["tgid"] == tgid)


def status(agent: RunningAgent) -> dict[str, Any]:
    return ask(agent.run_dir, {"ask": "status"}, agent.timeout_s)
