"""Tampered credentials that nobody can be told of are judged at each act until somebody is. In guests only.

By an agent for which a rule of the user tier is about them, and that is stopped while its ring is filled.
"""

import errno
import json
import shutil
import signal
from collections.abc import Iterator
from importlib.resources import as_file, files

import pytest
from krie.testing.agent import Line, RunningAgent, fired
from krie.testing.module import TestModule
from krie.testing.victims import Victims

from . import example
from .last_words import last_words

pytestmark = [pytest.mark.needs("test_module"), pytest.mark.needs("fentry", "fmod_ret")]
RULES = """
package krie.site

rules contains {"id": "USER", "action": "kill"} if {
	input.event.kind == "runtime_integrity.cred_tamper"
	input.process.exe_known
}
"""
WITHOUT_CRED001 = """
from pathlib import Path
from krie import hookimpl
from krie.plugins.runtime_integrity import plugin

everything = plugin.files
plugin.files = lambda package: Path({folder!r}) if package == "krie.policies" else everything(package)

@hookimpl
def krie_sensor():
    return None
"""
"""The kernel decides by that rule itself, and no other rule can weaken it. A plugin that comes first leaves it out."""
BEGIN = """
import json, mmap, time
memory = mmap.mmap(-1, 3)  # a write to a pipe, or a signal, would be compared itself
ready, go, again = range(3)
agent, parent = int(sys.argv[1]), os.getpid()

def wait(which):
    while not memory[which]:
        time.sleep(0.01)

def child(act):
    '''A process with the credentials of now.'''
    if made := os.fork():
        return made
    libc.prctl(1, 9, 0, 0, 0)  # PR_SET_PDEATHSIG
    os.closerange(0, 3)  # or whoever waits for their end waits for ours
    act()
    os._exit(0)

def resume():
    while not memory[again]:
        time.sleep(0.01)
        if os.getppid() != parent:
            return
    os.kill(agent, 18)

def tamper(what):
    os.write(device, b"tamper " + what)

def act():
    '''0, or the error.'''
    try:
        os.kill(other, 0)
        return 0
    except OSError as error:
        return error.errno

def fill():
    '''Has the ring take all that it can.'''
    for _ in range(20000):
        tamper(b"account")
        if act():
            return
    os._exit(1)

device = os.open("/dev/krie_test", os.O_WRONLY)
child(resume)
os.setresgid(65534, 65534, 65534)
os.setresuid(65534, 65534, 65534)
other = child(lambda: time.sleep(3600))
"""
FULL = "assert os.waitpid(child(fill), 0)[1] == 0\n"
END = """
answers = [act() for _ in range(3)]
print(json.dumps([os.getpid(), answers]), flush=True)
memory[again] = 1
for _ in range(3000):
    act()
    time.sleep(0.1)
print("went on")
"""
SEVERAL_ACTS = f'{BEGIN}{FULL}tamper(b"capabilities"){END}'
BY_A_CHILD = f"""{BEGIN}
assert libc.syscall(250, 1, 0) > 0  # a session's keyring of its own

def change():
    assert libc.syscall(250, 1, 0) > 0
    memory[ready] = 1
    wait(go)
    assert not libc.syscall(250, 18)  # KEYCTL_SESSION_TO_PARENT

changer = child(change)
wait(ready)
{FULL}
tamper(b"capabilities")
memory[go] = 1
assert os.waitpid(changer, 0)[1] == 0
{END}"""


@pytest.fixture(scope="module")
def agent(alone: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningAgent]:
    folder = tmp_path_factory.mktemp("untold")
    folder.chmod(0o700)
    policy = folder / "policy"
    policy.mkdir()
    (policy / "site.rego").write_text(RULES)
    shipped = folder / "shipped"
    with as_file(files("krie.policies").joinpath("runtime_integrity")) as rules:
        shutil.copytree(rules, shipped / "runtime_integrity", ignore=shutil.ignore_patterns("cred_tamper*"))
    plugin = example.write(folder / "plugin", {}, "")
    (plugin / "example_plugin.py").write_text(WITHOUT_CRED001.format(folder=str(shipped)))
    started = RunningAgent(
        folder,
        plugins={"example": {}, "runtime_integrity": {"required": True, "mode": "enforce"}},
        agent={"user_burst": 1_000_000, "user_rate": 1_000_000, "ring_mib": 1},
        policies=[policy],
        plugin_folders=[plugin],
    )
    with started:
        yield started


def _untold(agent: RunningAgent, victims: Victims, code: str) -> tuple[list[int], list[Line]]:
    """Errors of the first acts, which the agent cannot be told of, and what it is told of who acts on."""
    agent.process.send_signal(signal.SIGSTOP)
    try:
        said, *more = last_words(victims, code, str(agent.process.pid)).splitlines()
    finally:
        agent.process.send_signal(signal.SIGCONT)
    assert more == []
    agent.settle()
    tgid, answers = json.loads(said)
    return answers, agent.lines("runtime_integrity.cred_tamper", lambda line: line["process"]["tgid"] == tgid)


@pytest.mark.parametrize(
    "code",
    [pytest.param(SEVERAL_ACTS, marks=pytest.mark.long), BY_A_CHILD],
    ids=["several acts", "credentials that a child made"],
)
def test_each_act_is_refused_until_it_can_be_told(
    agent: RunningAgent, test_module: TestModule, victims: Victims, code: str
) -> None:
    answers, lines = _untold(agent, victims, code)
    assert answers == [errno.EAGAIN] * 3
    assert [fired(line) for line in lines] == [[("USER", "kill")]]
    assert "capabilities" in lines[0]["event"]["changed"]
    assert "killed" in lines[0]["done"]
