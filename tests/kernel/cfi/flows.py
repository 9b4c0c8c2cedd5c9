"""What ordinary programs do that gains something, or looks as if: Python code that processes of tests run."""

from ..rings import RING
from ..user_namespaces import CONTAINED

PROGRAMS = """
import os, subprocess, sys
folder = sys.argv[1]
for line in (("root", "become", "7"), ("root", "aside", "7"), ("somebody", "aside", "7"), ("capable", "become", "7")):
    for place in ("below", "merged"):
        for _ in range(3):
            subprocess.run([f"{folder}/{place}/{line[0]}", *line[1:]], check=True)
program = os.open(f"{folder}/below/somebody", os.O_RDONLY)
child = os.fork()
if not child:
    os.execve(program, ["somebody", "aside", "7"], {})      # execveat
assert not os.waitpid(child, 0)[1]
"""
"""That are set-uid to root or to others, or have capabilities; and from an overlay."""

KEYS = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
for _ in range(3):
    assert libc.syscall(250, 1, 0) > 0                      # KEYCTL_JOIN_SESSION_KEYRING
    child = os.fork()
    if not child:
        libc.syscall(250, 1, 0)
        os._exit(libc.syscall(250, 18) != 0)                # KEYCTL_SESSION_TO_PARENT
    assert not os.waitpid(child, 0)[1]
"""

NAMESPACES = """
import ctypes, os, struct
libc = ctypes.CDLL(None, use_errno=True)
own = os.geteuid()

def inside():
    for users in ((0, 0, 0), (-1, 0, -1)):
        assert not libc.syscall(117, *users), ctypes.get_errno()                # setresuid
    assert not libc.syscall(272, 0x24020000), ctypes.get_errno()                # unshare: mounts, UTS, processes
    assert not libc.mount(b"none", b"/mnt", b"tmpfs", 0, 0), ctypes.get_errno()
    os.execl("/bin/true", "true")

for way in ("unshare", "clone3"):
    for _ in range(3):
        (made, tell), (wait, go) = os.pipe(), os.pipe()
        if way == "clone3":
            arguments = struct.pack("<8Q", 0x30020000, 0, 0, 0, 17, 0, 0, 0)    # CLONE_NEWUSER, NEWPID, NEWNS
            child = libc.syscall(435, arguments, len(arguments))
        else:
            child = os.fork()
        if not child:
            if way == "unshare":
                assert not libc.syscall(272, 0x10000000), ctypes.get_errno()
            os.write(tell, b"x")
            os.read(wait, 1)
            inside()
        assert child > 0, ctypes.get_errno()
        os.read(made, 1)
        for name, text in (("setgroups", "deny"), ("gid_map", f"0 {os.getegid()} 1"), ("uid_map", f"0 {own} 1")):
            with open(f"/proc/{child}/{name}", "w") as file:
                file.write(text)
        os.write(go, b"x")
        status = os.waitpid(child, 0)[1]
        assert not status, (way, status)
"""
"""Containers: their users are given by who made them."""

ENTERED = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
(ready, tell), (wait, end) = os.pipe(), os.pipe()
child = os.fork()
if not child:
    assert not libc.syscall(272, 0x10000000), ctypes.get_errno()
    os.write(tell, b"x")
    os.read(wait, 1)
    os._exit(0)
os.read(ready, 1)
entering = os.fork()
if not entering:
    namespace = os.open(f"/proc/{child}/ns/user", os.O_RDONLY)
    assert not libc.syscall(308, namespace, 0), ctypes.get_errno()              # setns
    os._exit(0)
status = os.waitpid(entering, 0)[1]
os.write(end, b"x")
os.waitpid(child, 0)
assert not status
"""

MAPPED_BY_A_PROGRAM = f"""
{CONTAINED}
import subprocess, sys
program = sys.argv[1] + "/root"

class ByAProgram(Contained):
    def _give(self, users):
        subprocess.run([program, "map", str(self.tgid), users], check=True)

def inside():
    for user in (5, 0):
        assert not libc.syscall(117, -1, user, -1), ctypes.get_errno()
        libc.syscall(122, user)                             # setfsuid
    assert not libc.syscall(117, 5, 5, 5), ctypes.get_errno()

for _ in range(3):
    assert not ByAProgram(inside, f"0 {{os.geteuid()}} 1\\n1 100000 10\\n").go()
"""
"""As newuidmap(1) gives users of its own to an ordinary user's container."""

PERSONALITIES = (
    """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
"""
    + RING
    + """
text = ctypes.create_string_buffer(sys.argv[1].encode())
for flags in (0, BY_A_WORKER):
    child = os.fork()
    if not child:
        ring = Ring()
        personality = libc.syscall(427, ring.number, 9, 0, 0)                   # IORING_REGISTER_PERSONALITY
        assert personality > 0, ctypes.get_errno()
        os.setgroups([])
        os.setresgid(65534, 65534, 65534)
        os.setresuid(65534, 65534, 65534)
        request = (OPENAT, flags, -100, ctypes.addressof(text), 0, os.O_WRONLY)
        ring.submit(request, personality=personality)
        while not ring.answers():
            time.sleep(0.02)
        assert ring.answers()[0] >= 0, ring.answers()
        print("done", flush=True)
        os._exit(0)
    assert not os.waitpid(child, 0)[1]
"""
)
"""A ring does what its maker may, for whom that has become: by the system call, and by a worker."""
