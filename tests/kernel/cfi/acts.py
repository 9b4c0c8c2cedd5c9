"""Acts that only a right permits, and lookalikes of them: Python code that processes of tests run."""

import subprocess
import sys

from ..user_namespaces import CONTAINED

NOBODY = 65534
ACTS = ("file_capability", "setuid_root", "open_for_writing", "release_agent", "device_node", "module", "mount")
ANOTHER_WAY = {
    "truncate": "open_for_writing",
    "open_truncated": "open_for_writing",
    "remount": "mount",
    "unmount": "mount",
}
"""Of doing one of these."""
UNCHECKED = "unchecked"
"""Have the kernel's own checks left out, by the test module."""

DO = """
import collections, contextlib, ctypes, errno, json, os, stat, struct, sys
rounds, folder, group, uid, command = int(sys.argv[1]), sys.argv[2], sys.argv[3], int(sys.argv[4]), sys.argv[5]
libc = ctypes.CDLL(None, use_errno=True)
if command:
    device = os.open("/dev/krie_test", os.O_WRONLY)
    os.write(device, command.encode())
os.setgroups([])
os.setresgid(uid, uid, uid)
os.setresuid(uid, uid, uid)

def call(*arguments):
    if libc.syscall(*arguments) < 0:
        raise OSError(ctypes.get_errno(), "")

def own(name):
    path = f"{folder}/{uid}-{name}"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o644))
    return path

def file_capability(name):
    os.setxattr(own(name), "security.capability", struct.pack("<5I", 0x02000001, 1 << 10, 0, 0, 0))

def setuid_root(name):
    path = own(name)
    os.chmod(path, 0o4755)
    if command:
        os.write(device, f"own {path}".encode())
    else:
        os.chown(path, 0, 0)
        os.chmod(path, 0o4755)

def open_for_writing(name):
    os.close(os.open(f"{folder}/secret", os.O_WRONLY))

def truncate(name):
    os.truncate(f"{folder}/secret", 0)

def open_truncated(name):
    os.close(os.open(f"{folder}/secret", os.O_RDONLY | os.O_TRUNC))

def release_agent(name):
    os.close(os.open(f"{group}/release_agent", os.O_WRONLY))

def device_node(name):
    path = own(name)
    os.unlink(path)
    os.mknod(path, 0o600 | stat.S_IFCHR, os.makedev(1, 3))

def module(name):
    path = own(name)
    with open(path, "w") as file:
        file.write("no module")                             # what is empty is refused before anybody is asked
    file = os.open(path, os.O_RDONLY)
    try:
        call(313, file, b"", 0)                             # finit_module
    finally:
        os.close(file)

def mount(name):
    call(165, b"none", f"{folder}/mounted".encode(), b"tmpfs", 0, 0)
    call(166, f"{folder}/mounted".encode(), 0)              # umount2

def remount(name):
    call(165, None, f"{folder}/busy".encode(), None, 32, 0)         # MS_REMOUNT

acts = (file_capability, setuid_root, open_for_writing, truncate, open_truncated, release_agent, device_node, module,
        mount, remount)
answers = collections.defaultdict(collections.Counter)
for round in range(rounds):
    for act in acts:
        try:
            act(f"{act.__name__}{round}")
            answers[act.__name__]["done"] += 1
        except OSError as error:
            answers[act.__name__][errno.errorcode[error.errno]] += 1
    try:
        call(166, f"{folder}/busy".encode(), 2)             # umount2, lazily: of who mounted it
        answers["unmount"]["done"] += 1
    except OSError as error:
        answers["unmount"][errno.errorcode[error.errno]] += 1
print(json.dumps(answers))
"""

LEGAL = """
import os, stat, sys
folder = sys.argv[1]
os.close(os.open(f"{folder}/listed", os.O_WRONLY))          # by an access control list
os.close(os.open(f"{folder}/groups", os.O_WRONLY))          # by the group
os.close(os.open(f"{folder}/own-only", os.O_CREAT | os.O_WRONLY, 0o400))
os.close(os.open(folder, os.O_TMPFILE | os.O_RDWR, 0o400))
with open(f"{folder}/merged/file", "a") as file:
    file.write("copied up")
os.chmod(f"{folder}/merged/mode", 0o4755)
os.mkfifo(f"{folder}/pipe")
os.close(os.open(f"{folder}/own-suid", os.O_CREAT | os.O_WRONLY, 0o700))
os.chmod(f"{folder}/own-suid", 0o4755)
os.mknod(f"{folder}/whiteout", stat.S_IFCHR, 0)
os.chmod(f"{folder}/pipe", 0o4755)
for refuse in (lambda: os.chmod(f"{folder}/secret", 0o4755), lambda: os.chown(f"{folder}/own-suid", 0, 0)):
    try:                                                    # the file system refuses, behind the security hook
        refuse()
    except PermissionError:
        pass
    else:
        sys.exit("the kernel refused nothing")
"""
"""By nobody, in what `place` of test_rights.py lays out."""

BY_A_SERVER = """
import os, sys
file = sys.argv[1] + "/file"
for user in (65534, 7, 1001, 0):
    child = os.fork()
    if not child:
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
        for flags in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR | os.O_TRUNC, os.O_RDONLY | os.O_TRUNC):
            os.close(os.open(file, flags))
        opened = os.open(file, os.O_RDWR | os.O_APPEND)
        assert os.read(opened, 2) == b"#!" and os.write(opened, b"line") == 4
        os.ftruncate(opened, 0)
        os.close(opened)
        os.truncate(file, 0)
        os.chmod(file, 0o600)
        os.utime(file)
        os._exit(0)
    assert not os.waitpid(child, 0)[1], user
print("done")
"""
"""By anybody, on a file system whose server permits everything, though the file is somebody's and has mode 600."""

IN_A_NAMESPACE = """
import ctypes, os, struct, sys
folder = sys.argv[1]
libc = ctypes.CDLL(None, use_errno=True)
path = f"{folder}/inside"
os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o644))
os.setxattr(path, "security.capability", struct.pack("<5I", 0x02000001, 1 << 10, 0, 0, 0))
os.chmod(path, 0o4755)
os.close(os.open(path, os.O_WRONLY))
for line in sys.argv[2:]:
    assert not libc.mount(b"none", line.encode(), b"tmpfs", 0, 0), ctypes.get_errno()
    os.close(os.open(f"{line}/file", os.O_CREAT | os.O_WRONLY, 0o400))
    os.mkdir(f"{line}/moved")
    assert not libc.mount(line.encode(), f"{folder}/moved".encode(), None, 8192, None), ctypes.get_errno()  # MS_MOVE
    assert not libc.umount2(f"{folder}/moved".encode(), 0), ctypes.get_errno()
print("done")
"""
"""By root of a user namespace: all of it is its own."""

AS_A_SERVICE = f"""
{CONTAINED}
import struct, sys
folder, uid = sys.argv[1], int(sys.argv[2])

def service():
    libc.prctl(8, 1)                                         # PR_SET_KEEPCAPS
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    header, data = (ctypes.c_uint * 2)(0x20080522, 0), (ctypes.c_uint * 6)(1 << 31, 1 << 31, 0, 0, 0, 0)  # CAP_SETFCAP
    assert not libc.syscall(126, header, data), ctypes.get_errno()  # capset
    path = folder + "/service"
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o755))
    os.setxattr(path, "security.capability", struct.pack("<5I", 0x02000001, 1 << 10, 0, 0, 0))
    os.write(1, b"done\\n")

sys.exit(Contained(service, "0 0 65536").go())
"""
"""Not by root, in a container whose users are the machine's: the kernel writes that it holds for the machine's root."""

BARE_ROOT = """
import ctypes, os, struct, sys
folder, command = sys.argv[1:]
libc = ctypes.CDLL(None, use_errno=True)
device = os.open("/dev/krie_test", os.O_WRONLY)
os.write(device, command.encode())
header, data = (ctypes.c_uint * 2)(0x20080522, 0), (ctypes.c_uint * 6)()
assert not libc.syscall(126, header, data), ctypes.get_errno()  # capset
os.close(os.open(f"{folder}/bare", os.O_CREAT | os.O_WRONLY, 0o755))
try:
    os.setxattr(f"{folder}/bare", "security.capability", struct.pack("<6I", 0x03000001, 1 << 10, 0, 0, 0, 0))
    print("done")
except OSError as error:
    print(error.errno)
"""
"""By root of a container that has no capabilities, nor a user namespace: in words that hold for the machine's root."""

MAPPED = f"""
{CONTAINED}
import struct, sys
folder, code = sys.argv[1:]

def root():
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    os.execv(sys.executable, [sys.executable, "-I", "-c", code, folder + "/mapped"])

container = Contained(root, "0 100000 65536")
namespace = os.open("/proc/%d/ns/user" % container.tgid, os.O_RDONLY)
tree = libc.syscall(428, -100, (folder + "/plain").encode(), 1)              # open_tree, OPEN_TREE_CLONE
attributes = struct.pack("=4Q", 0x100000, 0, 0, namespace)                   # MOUNT_ATTR_IDMAP
if libc.syscall(442, tree, b"", 0x1000, attributes, len(attributes)) < 0:    # mount_setattr
    print("this kernel maps no users on tmpfs:", ctypes.get_errno())
    container.end()
    sys.exit()
assert libc.syscall(429, tree, b"", -100, (folder + "/mapped").encode(), 4) == 0  # move_mount
sys.exit(container.go())
"""
"""Root of a container, on a mount that makes its root the file system's."""


def run(code: str, *arguments: object, by: tuple[str, ...] = ()) -> str:
    """What the code prints. Raises `subprocess.CalledProcessError`; what it complained about is shown."""
    line = [*by, sys.executable, "-I", "-c", code, *map(str, arguments)]
    done = subprocess.run(line, stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout


AS_NOBODY = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
