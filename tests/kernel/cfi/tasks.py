"""What processes do about locked functions: attacks by the test module, and the everyday."""

ATTACKS = """
import os, sys
rounds, folder, command = int(sys.argv[1]), sys.argv[2], sys.argv[3]
device = os.open("/dev/krie_test", os.O_WRONLY)
killed = ran = 0
for round in range(rounds):
    child = os.fork()
    if not child:
        os.setresgid(65534, 65534, 65534)
        os.setresuid(65534, 65534, 65534)
        os.write(device, command.encode())
        os.close(os.open(f"{folder}/{round}", os.O_CREAT | os.O_WRONLY))
        os._exit(0)
    _, status = os.waitpid(child, 0)
    killed += os.WIFSIGNALED(status) and os.WTERMSIG(status) == 9
    ran += os.WIFEXITED(status)
print(killed, ran, len(os.listdir(folder)))
"""

BY_A_FORGED_ANSWER = """
import ctypes, json, os, sys
rounds = int(sys.argv[1])
libc = ctypes.CDLL(None, use_errno=True)
first = os.open("/proc/self/ns/user", os.O_RDONLY)

def to(*users):
    return lambda: libc.syscall(117, *users)                 # setresuid

ways = {
    "setuid": lambda: libc.syscall(105, 0),
    "setreuid": lambda: libc.syscall(113, 0, -1),
    "setresuid": to(-1, 0, -1),
    "saved": to(-1, -1, 0),
    "setfsuid": lambda: libc.syscall(122, 0),
    "setns": lambda: libc.syscall(308, first, 0),
}
answers = {}
for name, way in ways.items():
    killed = 0
    for round in range(rounds):
        child = os.fork()
        if not child:
            device = os.open("/dev/krie_test", os.O_WRONLY)
            os.setgroups([])
            os.setresgid(65534, 65534, 65534)
            os.setresuid(65534, 65534, 65534)
            if name == "setns":
                assert not libc.syscall(272, 0x10000000), ctypes.get_errno()    # unshare, CLONE_NEWUSER
            os.write(device, b"unchecked")
            way()
            os._exit(0)
        _, status = os.waitpid(child, 0)
        killed += os.WIFSIGNALED(status) and os.WTERMSIG(status) == 9
    answers[name] = killed
print(json.dumps(answers))
"""
"""Whatever capability the kernel asks for, it hears that the process has it."""

EVERYDAY = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
libc.prctl(8, 1); libc.prctl(28, 0)                      # PR_SET_KEEPCAPS, PR_SET_SECUREBITS: by a pointer
child = os.fork()
if not child:                                            # a task work of the parent's, by a pointer
    libc.syscall(250, 1, 0)                              # KEYCTL_JOIN_SESSION_KEYRING
    os._exit(libc.syscall(250, 18) != 0)                 # KEYCTL_SESSION_TO_PARENT
os.waitpid(child, 0)
libc.syscall(250, 0, -1, 1); libc.syscall(250, 1, 0)     # keyrings of the thread and of the session
os.setgroups([1, 2])
for call in (122, 123):                                  # setfsuid, setfsgid
    libc.syscall(call, 7); libc.syscall(call, 0)
uts = os.open("/proc/self/ns/uts", os.O_RDONLY)
libc.syscall(308, uts, 0)                                # setns
for which in (0x10000000, 0x04000000, 0x00020000):       # unshare: user, UTS, mount
    child = os.fork()
    if not child:
        os._exit(libc.syscall(272, which) != 0)
    os.waitpid(child, 0)
os.setresgid(7, 7, 0); os.setresgid(0, 0, 0); os.setregid(0, 0); os.setgid(0)
for uid in range(50):
    os.setresuid(uid, uid, 0); os.setresuid(0, 0, 0); os.setreuid(0, 0); os.setuid(0)
child = os.fork()
if not child:                                            # without capabilities, among one's own users
    os.setresuid(7, 8, 9)
    for users in ((8, 9, 7), (9, 7, 8), (-1, 8, -1), (9, 9, 8), (8, 8, 8)):
        assert not libc.syscall(117, *users), users
    os._exit(0)
assert not os.waitpid(child, 0)[1]
header, data = (ctypes.c_uint * 2)(0x20080522, 0), (ctypes.c_uint * 6)()
libc.syscall(125, header, data); libc.syscall(126, header, data)  # capget, capset
"""
SHELL = """
for n in 1 2 3; do su -s /bin/sh nobody -c id || exit; done
unshare --mount --uts --ipc --net --pid --fork true && unshare --user --map-root-user --net true || exit
echo '|/bin/true' > /proc/sys/kernel/core_pattern; sh -c 'kill -ABRT $$'
modprobe dummy numdummies=1 && modprobe -r dummy; true
"""
