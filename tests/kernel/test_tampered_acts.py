"""Each part of credentials that is tampered with is told, at a first act that is refused. In guests only."""

import os
from pathlib import Path

import pytest
from krie.testing.agent import Line, RunningAgent
from krie.testing.module import TestModule
from krie.testing.victims import Victims

from .last_words import last_words
from .overlays import mounted, overlaid
from .seccomp import CONFINE, IN_CHILD

pytestmark = [pytest.mark.needs("test_module"), pytest.mark.needs("fentry", "fmod_ret")]

OPEN = """
import signal, socket
device = os.open("/dev/krie_test", os.O_WRONLY)
"""
TAMPER = "os.write(device, sys.argv[1].encode())"
NOBODY = """
os.setresgid(65534, 65534, 65534)
os.setresuid(65534, 65534, 65534)
"""
IN_NAMESPACE = "assert not libc.unshare(0x10000000)"  # CLONE_NEWUSER
MAPPED = (
    f'{IN_NAMESPACE}\nfile = os.open("/proc/self/uid_map", os.O_WRONLY); os.write(file, b"0 0 1"); libc.prctl(8, 1)'
)
FIVE_MAPPED = f"""
import mmap, time
memory = mmap.mmap(-1, 1)
child = os.fork()
if not child:
    while not memory[0]:
        time.sleep(0.01)
    file = os.open(f"/proc/{{os.getppid()}}/uid_map", os.O_WRONLY)
    os._exit(os.write(file, b"0 0 1\\n1 1 1\\n2 2 1\\n3 3 1\\n4 4 1\\n") and 0)
{IN_NAMESPACE}
memory[0] = 1
os.waitpid(child, 0)
libc.prctl(8, 1)
"""
GIVEN_UP = "libc.prctl(38, 1, 0, 0, 0); libc.prctl(8, 1, 0, 0, 0)"  # PR_SET_NO_NEW_PRIVS, and then it is compared
CONTENTS = {
    "tamper list": ("os.setgroups([65533, 65534])" + NOBODY, "group_list"),
    "tamper highest bits": ("os.setgroups(range(65530, 65534))" + NOBODY, "group_list"),
    "tamper owner": (IN_NAMESPACE, "namespace_content"),
    "tamper map": (MAPPED, "namespace_content"),
    "tamper last map": (FIVE_MAPPED, "namespace_content"),
    "tamper blob": (NOBODY, "security"),
    "tamper account": (NOBODY, "charged"),
    "tamper privileges": (GIVEN_UP, "no_new_privs"),
    "tamper seccomp": (CONFINE, "seccomp"),
    "tamper seccomp mark": (CONFINE, "seccomp"),
    "tamper seccomp filter": (CONFINE + IN_CHILD, "seccomp"),
    "tamper seccomp chain": (CONFINE + IN_CHILD, "seccomp"),
    "tamper seccomp suspended": (CONFINE, "seccomp"),
    "below": (IN_NAMESPACE, "initial_namespace"),
}
"""What comes before, and what is told to have changed."""
ACTS = {
    "attribute": ("capabilities", 'os.setxattr("file", "security.capability", b"\\1\\0\\0\\2" + bytes(16))', {"write"}),
    "symlink": ("users", 'os.symlink("file", "made")', {"write"}),
    "link": ("users", 'os.link("file", "made")', {"write"}),
    "mode": ("users", 'os.chmod("file", 0o4755)', {"write"}),
    "raw socket": ("capabilities", "socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)", {"capability"}),
    "packets": ("capabilities", "socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)", {"capability"}),
    "port": ("capabilities", 'socket.socket().bind(("127.0.0.1", 81))', {"capability"}),
    "name": ("capabilities", 'socket.sethostname("tampered")', {"capability"}),
    "unshare": ("capabilities", "libc.unshare(0x4000000)", {"capability", "prepare"}),  # CLONE_NEWUTS
    "mount": (
        "capabilities",
        'libc.mount(b"none", b"/mnt", b"tmpfs", 0, 0) or libc.umount2(b"/mnt", 2)',
        {"capability"},
    ),
    "subjective folder": ("subjective", 'os.mkdir("made")', {"write"}),
}
"""What is tampered with, what is done then, and where that is told."""
CHANGED = {"users": ["users"], "capabilities": ["capabilities"], "subjective": ["subjective"]}


def _told(agent: RunningAgent, victims: Victims) -> Line:
    """The first line of it.

    Who is not ended goes on, and the same is told again: of each of its threads, and of new credentials that are made
    of what was tampered with.
    """
    agent.settle()
    lines = agent.lines("runtime_integrity.cred_tamper", victims.mine)
    assert [each["id"] for line in lines for each in line["decision"]["rules"]] == ["CRED001"] * len(lines)
    assert [line["event"]["changed"] for line in lines] == [lines[0]["event"]["changed"]] * len(lines)
    assert len(lines) == 1 or lines[0]["mode"] == "observe"
    return lines[0]


@pytest.mark.parametrize("how", CONTENTS)
def test_all_that_credentials_hold_and_point_to_is_compared(
    judging: RunningAgent, test_module: TestModule, victims: Victims, how: str
) -> None:
    before, changed = CONTENTS[how]
    said = last_words(victims, f'{OPEN}{before}\n{TAMPER}\nlibc.prctl(8, 1, 0, 0, 0)\nprint("went on")', how)
    line = _told(judging, victims)
    assert line["event"]["changed"] == [changed]
    if line["mode"] == "enforce":
        assert (said, set(line["done"])) == ("", {"poisoned", "killed", "refused"})
    else:
        assert (said, line["done"]) == ("went on\n", [])


IN_A_THREAD = """
import threading
thread = threading.Thread(target=libc.prctl, args=(8, 1, 0, 0, 0))
thread.start()
thread.join()
print("went on")
"""


def test_a_thread_that_shares_tampered_credentials_is_told(
    judging: RunningAgent, test_module: TestModule, victims: Victims
) -> None:
    last_words(victims, f"{OPEN}{NOBODY}\n{TAMPER}\n{IN_A_THREAD}", "tamper blob")
    assert _told(judging, victims)["event"]["changed"] == ["security"]


TO_OTHERS = {"signal": "os.kill(child, 0)", "ptrace": 'os.readlink(f"/proc/{child}/cwd")'}
"""What is done to a process of the same user, for which no capability is asked."""
WITH_CHILD = """
libc.prctl(4, 1, 0, 0, 0)  # PR_SET_DUMPABLE
child = os.fork()
if not child:
    libc.prctl(1, 9, 0, 0, 0)  # PR_SET_PDEATHSIG
    os.closerange(0, 3)
    signal.pause()
"""


@pytest.mark.parametrize("operation", TO_OTHERS)
def test_who_does_something_to_other_processes_is_compared(
    judging: RunningAgent, test_module: TestModule, victims: Victims, operation: str
) -> None:
    code = f'{OPEN}{NOBODY}{WITH_CHILD}\n{TAMPER}\n{TO_OTHERS[operation]}\nprint("went on")'
    said = last_words(victims, code, "tamper account")
    line = _told(judging, victims)
    assert (line["event"]["changed"], line["event"]["operation"]) == (["charged"], operation)
    if line["mode"] == "enforce":
        assert (said, set(line["done"])) == ("", {"poisoned", "killed", "refused"})
    else:
        assert (said, line["done"]) == ("went on\n", [])


ACT = """
def act(): %s
%s
try:
    act()
except OSError:
    pass
print("went on")
"""


@pytest.mark.parametrize("act", ACTS)
def test_a_first_act_is_refused(
    judging: RunningAgent, test_module: TestModule, victims: Victims, tmp_path: Path, act: str
) -> None:
    what, code, operations = ACTS[act]
    tmp_path.chmod(0o755)
    file = tmp_path / "file"
    file.write_text("as it was")
    file.chmod(0o600)
    said = last_words(
        victims, OPEN + "os.chdir(sys.argv[2])" + NOBODY + ACT % (code, TAMPER), f"tamper {what}", str(tmp_path)
    )
    line = _told(judging, victims)
    assert line["event"]["changed"] == CHANGED[what]
    assert line["event"]["operation"] in operations
    if line["mode"] == "observe":
        assert (said, line["done"]) == ("went on\n", [])
        return
    assert said == ""
    refused = {"refused"} if line["event"]["operation"] != "write" else set()  # by containment
    assert set(line["done"]) == {"poisoned", "killed"} | refused
    assert [each.name for each in tmp_path.iterdir()] == ["file"]
    assert file.stat().st_mode & 0o7777 == 0o600
    assert "security.capability" not in os.listxattr(file)


LEGAL = """
import resource, signal, subprocess, socket
for command in (["su", "-s", "/bin/true", "nobody"],
                ["setpriv", "--reuid=1000", "--clear-groups", "cat", "/etc/passwd"],
                ["unshare", "-Urm", "sh", "-c", "mount -t tmpfs none /mnt && echo > /mnt/x && hostname && kill -0 $$"],
                ["bwrap", "--unshare-all", "--ro-bind", "/", "/", "--tmpfs", "/tmp", "touch", "/tmp/x"],):
    try:
        subprocess.run(command, stdin=subprocess.DEVNULL, timeout=20, check=False, capture_output=True)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        pass
os.chdir(sys.argv[1])
open("below", "a").write("copied up")
os.chmod("below", 0o600)
os.rename("below", "other")
os.mkdir("new")
os.open("other", os.O_RDWR)
os.setxattr("other", "trusted.krie", b"x")
resource.setrlimit(resource.RLIMIT_CORE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
for number in (signal.SIGABRT, signal.SIGQUIT, signal.SIGSEGV):
    child = os.fork()
    if not child:
        while True:
            os.kill(os.getpid(), number) if number != signal.SIGQUIT else os.close(os.open("other", os.O_RDWR))
    if number == signal.SIGQUIT:
        import time
        time.sleep(0.2)
        os.kill(child, number)
    os.waitpid(child, 0)
os.setgroups([5, 6, 7])
os.access("other", os.W_OK, effective_ids=False)
os.setresuid(1000, 1000, 0)
os.access("other", os.W_OK, effective_ids=False)
socket.socket()
"""


def test_ordinary_acts_are_silent(judging: RunningAgent, victims: Victims, tmp_path: Path) -> None:
    with mounted(tmp_path, "-t", "tmpfs", "none"):
        (tmp_path / "image").mkdir()
        (tmp_path / "image/below").write_text("below")
        with overlaid(tmp_path, "image", "root") as root:
            victims.run(LEGAL, str(root))
    judging.settle()
    assert judging.lines("runtime_integrity.cred_tamper", victims.mine) == []
