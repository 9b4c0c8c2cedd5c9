"""What was tampered with is not legal because something legal follows: told at that, and refused. In guests only."""

from pathlib import Path

import pytest
from krie.testing.agent import Line, RunningAgent
from krie.testing.module import TestModule
from krie.testing.victims import Victims

from .last_words import last_words
from .overlays import mounted, overlaid
from .seccomp import CONFINE

pytestmark = [pytest.mark.needs("test_module"), pytest.mark.needs("fentry", "fmod_ret")]

TAMPER = """
import threading
device = os.open("/dev/krie_test", os.O_WRONLY)
os.setresgid(65534, 65534, 65534)
os.setresuid(65534, 65534, 65534)
assert libc.syscall(250, 1, 0) > 0  # a session's keyring of its own
def tamper(): os.write(device, sys.argv[1].encode())
"""
TRANSITIONS = {
    "keepcaps": "libc.prctl(8, 1, 0, 0, 0)",
    "securebits": "libc.prctl(28, 1 << 6, 0, 0, 0)",
    "capset": "libc.syscall(126, (ctypes.c_uint32 * 2)(0x20080522), (ctypes.c_uint32 * 6)())",
    "keyctl": "libc.syscall(250, 1, 0)",
    "setresuid": "libc.syscall(117, 0, 0, 0)",
    "unshare": "libc.unshare(0x10000000)",  # CLONE_NEWUSER
    "fork": "child = os.fork(); child or os._exit(0); os.waitpid(child, 0)",
    "clone": "child = libc.syscall(56, 0x10000011, 0, 0, 0, 0); child or os._exit(0); os.waitpid(child, 0)",
    "exec": 'os.execv("/bin/echo", ["echo", "went on"])',
}
"""Each by its name; not by functions of the C library that ask all threads, or exit where they fail."""
CHANGES = {
    "users": {"users"},
    "effective": {"users"},
    "groups": {"groups"},
    "capabilities": {"capabilities"},
    "pointer": {"users", "pointer"},
}
NO_TRANSITION = {"securebits", "setresuid"}
"""Of whom all users were written: ends before credentials are made, as it changes nothing, or takes a capability."""
CASES = [("users", each) for each in TRANSITIONS if each not in NO_TRANSITION] + [
    ("effective", "capset"),
    ("effective", "fork"),
    ("effective", "setresuid"),
    ("groups", "keepcaps"),
    ("groups", "keyctl"),
    ("groups", "exec"),
    ("capabilities", "securebits"),
    ("capabilities", "setresuid"),
    ("capabilities", "unshare"),
    ("pointer", "keepcaps"),
    ("pointer", "clone"),
]


def _enforced(line: Line) -> bool:
    return bool(line["mode"] == "enforce")


def _told(agent: RunningAgent, victims: Victims) -> Line:
    agent.settle()
    (line,) = agent.lines("runtime_integrity.cred_tamper", victims.mine)
    assert [each["id"] for each in line["decision"]["rules"]] == ["CRED001"]
    return line


@pytest.mark.parametrize(("how", "transition"), CASES)
def test_a_legal_transition_does_not_launder(
    judging: RunningAgent, test_module: TestModule, victims: Victims, how: str, transition: str
) -> None:
    code = f'{TAMPER}tamper()\n{TRANSITIONS[transition]}\nprint("went on")'
    said = last_words(victims, code, f"tamper {how}")
    line = _told(judging, victims)
    assert set(line["event"]["changed"]) == CHANGES[how]
    # And not what it says then, which is a write to a pipe. Since 6.3 setresuid(2) asks for the right to it first, and
    # overlayfs for one to read an attribute (xattr_permission) where it looks up a file that is not cached.
    assert line["event"]["operation"] in {"prepare"} | (
        {"capability"} if transition in {"setresuid", "exec"} else set()
    )
    assert line["event"]["uid_before"] == 65534
    if not _enforced(line):
        assert (said, line["done"]) == ("went on\n", [])
        return
    assert said == ""
    assert set(line["done"]) == {"poisoned", "killed", "refused"}


BY_A_CHILD = """
import mmap, time
ready, go = 0, 1
memory = mmap.mmap(-1, 2)  # a write to a pipe, or a signal, would be compared itself
child = os.fork()
if not child:
    assert libc.syscall(250, 1, 0) > 0
    memory[ready] = 1
    while not memory[go]:
        time.sleep(0.01)
    os._exit(libc.syscall(250, 18) and 1)  # KEYCTL_SESSION_TO_PARENT
while not memory[ready]:
    time.sleep(0.01)
tamper()
memory[go] = 1
print("changed", os.waitpid(child, 0)[1], flush=True)
"""


def test_credentials_that_a_child_made_are_no_way_round(
    judging: RunningAgent, test_module: TestModule, victims: Victims
) -> None:
    """The kernel copies nothing then: it is found when they replace the old ones."""
    said = last_words(victims, TAMPER + BY_A_CHILD, "tamper capabilities")
    line = _told(judging, victims)
    assert (line["event"]["operation"], line["event"]["changed"]) == ("commit", ["capabilities"])
    assert (said, set(line["done"])) == (("", {"poisoned", "killed"}) if _enforced(line) else ("changed 0\n", set()))


IN_A_CHILD = """
tamper()
child = os.fork()
child or os.execv("/bin/echo", ["echo", "went on"])
os.waitpid(child, 0)
"""
IN_A_THREAD = """
tamper()
thread = threading.Thread(target=libc.prctl, args=(8, 1, 0, 0, 0))
thread.start()
thread.join()
print("went on")
"""


@pytest.mark.parametrize("code", [IN_A_CHILD, IN_A_THREAD])
def test_children_of_subjective_credentials_are_told(
    judging: RunningAgent, test_module: TestModule, victims: Victims, code: str
) -> None:
    said = last_words(victims, TAMPER + code, "tamper subjective")
    line = _told(judging, victims)
    assert "users" in line["event"]["changed"]
    assert said == ("" if _enforced(line) else "went on\n")


def test_a_child_that_was_tampered_with_before_it_ran_is_told(
    judging: RunningAgent, test_module: TestModule, victims: Victims
) -> None:
    """What it has when it first runs is not what it was born with: nothing of its maker's has changed."""
    said = last_words(victims, TAMPER + IN_A_CHILD, "bear root")
    line = _told(judging, victims)
    assert line["event"]["changed"] == ["users"]
    assert line["event"]["operation"] in {"prepare", "capability"}  # as above, of an exec
    assert said == ("" if _enforced(line) else "went on\n")


BY_A_THREAD = """
ready = threading.Event()
def execute():
    ready.wait()
    os.execv("/bin/echo", ["echo", "went on"])
threading.Thread(target=execute).start()
ready.set()
tamper()  # once the other one waits for this one to end
"""
"""The first thread is another one than that which execs."""


@pytest.mark.parametrize(("how", "changed"), [("seccomp mark", "seccomp"), ("capabilities", "capabilities")])
def test_an_exec_of_another_thread_than_the_first_does_not_launder(
    judging: RunningAgent, test_module: TestModule, victims: Victims, how: str, changed: str
) -> None:
    """It takes the first one's place, and its start time; until then it waits, for as long as anybody likes."""
    said = last_words(victims, CONFINE + TAMPER + BY_A_THREAD, f"amid {how}")
    line = _told(judging, victims)
    assert (line["event"]["operation"], line["event"]["changed"]) == ("commit", [changed])
    assert (said, set(line["done"])) == (("", {"poisoned", "killed"}) if _enforced(line) else ("went on\n", set()))


@pytest.mark.parametrize(("how", "changed"), [("seccomp", "seccomp"), ("seccomp mark", "seccomp")])
def test_who_says_that_he_ends_is_compared(
    judging: RunningAgent, test_module: TestModule, victims: Victims, how: str, changed: str
) -> None:
    """The kernel kills nobody who ends; that he is poisoned is enough."""
    code = f'{CONFINE}{TAMPER}try: tamper()\nexcept OSError: pass\nlibc.prctl(8, 1, 0, 0, 0)\nprint("went on")'
    last_words(victims, code, f"exiting {how}")
    line = _told(judging, victims)
    assert (line["event"]["operation"], line["event"]["changed"]) == ("prepare", [changed])
    assert {"poisoned", "refused"} <= set(line["done"]) or not _enforced(line)


LEGAL = f"""
import signal
for change in {[each for name, each in TRANSITIONS.items() if name != "exec"]!r}:
    for user in (0, 1000):  # of which one may more
        child = os.fork()
        if not child:
            os.setresgid(user, user, user)
            os.setresuid(user, user, user)
            exec(change)
            libc.prctl(8, 1, 0, 0, 0)
            os.execv("/bin/true", ["true"])
        os.waitpid(child, 0)
child = os.fork()
if not child:
    assert libc.syscall(250, 1, 0) > 0
    os._exit(libc.syscall(250, 18) and 1)
os.waitpid(child, 0)
for folder in sys.argv[1:]:
    assert os.access(folder, os.W_OK, effective_ids=False)
    open(folder + "/below", "a").write("copied up")
    os.rename(folder + "/below", folder + "/other")
    os.mkdir(folder + "/new")
    os.symlink("other", folder + "/link")
os.execv("/bin/true", ["true"])
"""


def test_legal_transitions_are_silent(judging: RunningAgent, victims: Victims, tmp_path: Path) -> None:
    """Also where the kernel works in the name of whoever mounted something, and derives from that."""
    with mounted(tmp_path, "-t", "tmpfs", "none"):  # what is an overlay itself cannot be the upper one
        (tmp_path / "image").mkdir()
        (tmp_path / "image/below").write_text("below")
        with overlaid(tmp_path, "image", "root") as root:
            victims.run(LEGAL, str(root))
    judging.settle()
    assert judging.lines("runtime_integrity.cred_tamper", victims.mine) == []
