"""What the rules decide is done. In guests of the lab only: krie lab run --kernel debian-6.12 -- python -m pytest"""

import os
import time
from pathlib import Path

import pytest
from krie.testing.agent import RunningAgent
from krie.testing.victims import Victims

pytestmark = pytest.mark.needs("guest", "fmod_ret")

SET_BACK = """
wanted = (ctypes.c_long * 2)(10**9, 0)  # in 2001
print(os.getpid(), ctypes.get_errno() if libc.clock_settime(0, wanted) else 0)
"""


def test_the_first_attempt_is_refused(tmp_path: Path, victims: Victims) -> None:
    tmp_path.chmod(0o700)
    plugins = {"clock": {"mode": "enforce", "required": True}}
    # Without the way that cannot refuse: where no other one works, the agent ends and says why.
    with RunningAgent(tmp_path, plugins=plugins, agent={"allow_syscall_tracepoints": False}) as agent:
        tgid, error = map(int, victims.run(SET_BACK).stdout.split())
        agent.settle()
        (line,) = agent.lines("clock.settime", lambda line: line["process"]["tgid"] == tgid)
    assert os.strerror(error) == "Operation not permitted"
    assert time.time() > 1.5 * 10**9
    assert line["event"]["seconds"] == 10**9
    assert [each["id"] for each in line["decision"]["rules"]] == ["CLOCK001"]
    assert (line["decision"]["tier"], line["done"]) == ("kernel", ["refused"])
