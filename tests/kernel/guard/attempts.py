"""What an agent tells of attempts on itself."""

import os
import sys

from krie.testing.agent import Line, RunningAgent


def attempts(agent: RunningAgent, attempt: str, count: int = 1, *, by_us: bool = True) -> None:
    """It is told, with who did it."""
    lines: list[Line] = []
    while sum(line["event"]["count"] for line in lines) < count:
        lines = agent.wait("krie.guarded", lambda line: line["event"]["attempt"] == attempt, count=len(lines) + 1)
    if by_us:
        assert {line["event"]["stranger_tgid"] for line in lines} == {os.getpid()}
        assert lines[0]["event"]["stranger"]["exe"] == os.path.realpath(sys.executable)
