"""What an agent with syscall_table tells of hooks, and of no others."""

from krie.testing.agent import Line, RunningAgent

HOOK, ACTIVITY = "syscall_table.hook", "syscall_table.activity"
PLUGIN = {"syscall_table": {"code": False}}
"""Code as a whole is the subject of test_syscall_table_code.py; to compare it takes guests long."""


def _looked(line: Line) -> bool:
    return bool(line["event"]["looks"])


class Hooks:
    """Lines that come while something is done."""

    def __init__(self, agent: RunningAgent) -> None:
        self._agent = agent
        agent.settle()
        self._before = len(agent.lines(HOOK))

    def expect(self, count: int) -> list[Line]:
        """So many more, and no other for two looks of the timer."""
        self._agent.wait(HOOK, count=self._before + count)
        self.pass_time()
        lines = self._agent.lines(HOOK)[self._before :]
        assert len(lines) == count, [line["event"] for line in lines]
        self._before += count
        return lines

    def pass_time(self) -> None:
        """Two more scans that tell of looks of the timer: those that the second one tells of began after this call."""
        self._agent.wait(ACTIVITY, _looked, count=len(self._agent.lines(ACTIVITY, _looked)) + 2)

    def none(self) -> None:
        self.pass_time()
        lines = self._agent.lines(HOOK)[self._before :]
        assert not lines, [line["event"] for line in lines]
