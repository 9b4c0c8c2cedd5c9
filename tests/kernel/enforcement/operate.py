"""Code of a victim that tries everything that poison should refuse, each by its own way into the kernel.

It prepares first, gets itself poisoned if told so, tries, and writes its own tgid, a child's, the errors by name, and
that of what is left to it: plain memory. Its twin does the same without being poisoned: then an operation succeeds, or
fails for another reason than a right.
"""

OPERATE = """
import array, fcntl, json, mmap, resource, socket, struct
folder, poisoned = sys.argv[1], sys.argv[2] == "poisoned"
text = lambda name: f"{folder}/{name}".encode()
for name in "opened", "removed", "renamed", "changed", "capable", "linked":
    open(f"{folder}/{name}", "w").write("x" * 4096)
for name in "gone", "tree", "mount", "root":
    os.mkdir(f"{folder}/{name}")
for options in b"usrquota", None:  # which older kernels do not know
    if not called(165, b"tmpfs", text("mount"), b"tmpfs", 0, options):
        break
memory_file = os.memfd_create("krie")
called(240, b"krie-there", os.O_CREAT, 0o600, None)
child = os.fork()
if child == 0:
    os.closerange(0, 3)  # or the test would wait for its end, too
    time.sleep(600)
    os._exit(0)
buffer = ctypes.create_string_buffer(256)
vector = (ctypes.c_ulong * 2)(ctypes.addressof(buffer), 8)
pages = mmap.mmap(-1, 4096)
address = ctypes.addressof(ctypes.c_char.from_buffer(pages))
opened = os.open(f"{folder}/opened", os.O_RDONLY)
mounts = os.open("/proc/self/ns/mnt", os.O_RDONLY)
quotas = os.open(f"{folder}/mount", os.O_RDONLY)
watcher = libc.syscall(294, 0)
attributes = ctypes.create_string_buffer(72)
dummy = struct.pack("=IIQQQQQ", 1, 64, 9, 0, 0, 0, 0x60)
capability = struct.pack("<IIIII", 0x02000001, 0xffffffff, 0, 0x1ff, 0)
acl = struct.pack("=I" + "HHI" * 3, 2, 1, 6, 0xffffffff, 4, 4, 0xffffffff, 32, 4, 0xffffffff)
unconnected, options, bound, server = (socket.socket(socket.AF_UNIX) for _ in range(4))
bound.bind("")
server.bind("")
server.listen(1)
server.setblocking(False)
unbound = socket.socket(socket.AF_UNIX)
one, other = socket.socketpair()
socket.send_fds(one, [b"x"], [opened])
segment = libc.shmget(0, ctypes.c_size_t(4096), 0o600)
queue, semaphore = libc.msgget(0, 0o600), libc.semget(0, 1, 0o600)
parameters = ctypes.create_string_buffer(120)
uring = libc.syscall(425, 8, parameters)
libc.shmat.restype = ctypes.c_void_p

def received():
    got = array.array("i")
    for _, _, data in other.recvmsg(1, socket.CMSG_SPACE(4))[1]:
        got.frombytes(data[:4])
    return 0 if got else 13

def attached():
    return ctypes.get_errno() if libc.shmat(segment, None, 0) == 2**64 - 1 else 0

def accepted():
    try:
        return denied(server.accept)
    except BlockingIOError:
        return 11

def raised():
    '''Capabilities are given up and taken again, which is no matter of rights: using one is.'''
    header, rights = struct.pack("=Ii", 0x20080522, 0), ctypes.create_string_buffer(24)
    called(125, header, rights)
    lowered = bytes(4) + rights[4:12] + bytes(4) + rights[16:24]
    return called(126, header, lowered) or called(126, header, rights) or operations["sethostname"]()

def there(error):
    return 13 if error == 38 and poisoned else error  # the kernel may have none

def ring():
    if uring < 0:  # the kernel, or its administrator, has none: a new one would be refused by the kernel
        return 13 if poisoned else 0
    return denied(lambda: mmap.mmap(uring, 4096))

operations = {
    "open": lambda: denied(lambda: os.open(f"{folder}/opened", os.O_RDONLY)),
    "create": lambda: denied(lambda: os.open(f"{folder}/new", os.O_CREAT | os.O_WRONLY)),
    "unlink": lambda: denied(lambda: os.unlink(f"{folder}/removed")),
    "rename": lambda: denied(lambda: os.rename(f"{folder}/renamed", f"{folder}/other")),
    "chmod": lambda: denied(lambda: os.chmod(f"{folder}/changed", 0o600)),
    "truncate": lambda: denied(lambda: os.truncate(f"{folder}/changed", 1)),
    "symlink": lambda: denied(lambda: os.symlink("/nowhere", f"{folder}/symbolic")),
    "link": lambda: denied(lambda: os.link(f"{folder}/linked", f"{folder}/hard")),
    "mkdir": lambda: denied(lambda: os.mkdir(f"{folder}/made")),
    "rmdir": lambda: denied(lambda: os.rmdir(f"{folder}/gone")),
    "mknod of a regular file": lambda: denied(lambda: os.mknod(f"{folder}/regular", 0o100600)),
    "mknod of a FIFO": lambda: denied(lambda: os.mkfifo(f"{folder}/fifo")),
    "mknod of a device": lambda: denied(lambda: os.mknod(f"{folder}/mem", 0o20600, os.makedev(1, 1))),
    "setxattr of a capability": lambda: denied(
        lambda: os.setxattr(f"{folder}/capable", "security.capability", capability)
    ),
    "setxattr": lambda: denied(lambda: os.setxattr(f"{folder}/changed", "trusted.krie", b"x")),
    "setxattr of an ACL": lambda: denied(
        lambda: os.setxattr(f"{folder}/changed", "system.posix_acl_access", acl)
    ),
    "removexattr": lambda: denied(lambda: os.removexattr(f"{folder}/linked", "security.capability")),
    "removexattr of an ACL": lambda: denied(
        lambda: os.removexattr(f"{folder}/linked", "system.posix_acl_access")
    ),
    "mmap": lambda: denied(lambda: mmap.mmap(opened, 4096, prot=mmap.PROT_READ)),
    "mmap of executable memory": lambda: denied(lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_EXEC)),
    "mmap of memory that is executable when read": lambda: libc.personality(0x400000) and 0
    or denied(lambda: mmap.mmap(-1, 4096, prot=mmap.PROT_READ)),
    "mprotect": lambda: called(10, ctypes.c_void_p(address), 4096, 5),
    "kill": lambda: denied(lambda: os.kill(child, 0)),
    "process_vm_readv": lambda: called(310, child, vector, 1, vector, 1, ctypes.c_ulong(0)),
    "socket": lambda: denied(lambda: socket.socket(socket.AF_UNIX)),
    "connect": lambda: denied(lambda: unconnected.connect("\\0nobody")),
    "bind": lambda: denied(lambda: unbound.bind("")),
    "listen": lambda: denied(lambda: bound.listen(1)),
    "accept": accepted,
    "setsockopt": lambda: denied(lambda: options.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)),
    "a descriptor from another": received,
    "mount": lambda: called(165, b"none", text("tree"), b"tmpfs", 0, None),
    "umount": lambda: called(166, text("mount"), 2),
    "pivot_root": lambda: called(155, text("root"), text("root")),
    "open_tree": lambda: called(428, -100, text("tree"), 1),
    "move_mount": lambda: called(429, -1, b"", -100, text("tree"), 4),
    "fsopen": lambda: called(430, b"tmpfs", 0),
    "unshare": lambda: called(272, 0x20000),
    "setns": lambda: called(308, mounts, 0),
    "chroot": lambda: denied(lambda: os.chroot("/")),
    "setgroups": lambda: called(116, 0, None),
    "setuid": lambda: called(105, 0),
    "setgid": lambda: called(106, 0),
    "iopl": lambda: called(172, 3),
    "ioperm": lambda: called(173, 0x80, 1, 1),
    "clock_settime": lambda: denied(lambda: time.clock_settime(0, time.time())),
    "sethostname": lambda: denied(lambda: socket.sethostname(os.uname().nodename)),
    "acct": lambda: called(163, None),
    "quotactl": lambda: there(called(443, quotas, 0x80000800, 65534, bytes(72))),  # Q_SETQUOTA
    "swapon": lambda: called(167, b"/nowhere", 0),
    "swapoff": lambda: called(168, b"/nowhere"),
    "reboot": lambda: called(169, 0xfee1dead, 672274793, 0, 0),
    "kexec_load": lambda: called(246, 0, 0, None, ctypes.c_ulong(0xffff)),
    "kexec_file_load": lambda: there(called(320, opened, -1, ctypes.c_ulong(0), None, ctypes.c_ulong(0xffff))),
    "capset": raised,
    "exec of a memfd": lambda: called(322, memory_file, b"", None, None, 0x1000),
    "syslog": lambda: called(103, 5, None, 0),
    "finit_module": lambda: called(313, opened, b"", 0),
    "init_module": lambda: called(175, ctypes.c_void_p(None), ctypes.c_ulong(4096), b""),
    "bpf": lambda: called(321, 0, attributes, 72),
    "perf_event_open": lambda: called(298, dummy, 0, -1, -1, 8),
    "inotify_add_watch": lambda: called(254, watcher, b"/", 1),
    "fanotify_init": lambda: called(300, 0, 0),
    "request_key": lambda: called(249, b"user", b"krie-none", b"", 0),
    "add_key": lambda: called(248, b"user", b"krie", b"x", ctypes.c_size_t(1), -4),
    "shmat": attached,
    "msgsnd": lambda: called(69, queue, struct.pack("=q8s", 1, b"x"), ctypes.c_size_t(1), 0),
    "mq_open": lambda: called(240, b"krie-new", os.O_CREAT, 0o600, None),
    "mq_open of what is there": lambda: called(240, b"krie-there", 0, 0, None),
    "mq_unlink": lambda: called(241, b"krie-there"),
    "semop": lambda: called(65, semaphore, struct.pack("=Hhh", 0, 1, 0), ctypes.c_size_t(1)),
    "io_uring": ring,
    "fcntl": lambda: denied(lambda: fcntl.fcntl(opened, fcntl.F_SETSIG, 9)),
    "ioctl": lambda: denied(lambda: fcntl.ioctl(opened, 0x80086601, bytes(8))),
    "sched_setaffinity": lambda: denied(lambda: os.sched_setaffinity(0, os.sched_getaffinity(0))),
    "prlimit": lambda: denied(lambda: resource.prlimit(child, resource.RLIMIT_NOFILE)),
    "open_by_handle_at": lambda: called(304, -100, struct.pack("=Ii8s", 8, 1, b""), 0),
    "fork": lambda: denied(lambda: os.fork() or os._exit(0)),
    "thread": lambda: denied(lambda: __import__("_thread").start_new_thread(lambda: None, ())),
}
if poisoned:
    write(1002)
    until(operations["open"], 13)
def tried(operation):
    try:
        return operation()
    except RuntimeError:  # a thread
        return 13
errors = {name: tried(operation) for name, operation in operations.items()}
if poisoned:
    errors["execve"] = denied(lambda: os.execv("/bin/true", ["true"]))
libc.personality(0)
memory = denied(lambda: mmap.mmap(-1, 1 << 20))
os.write(1, json.dumps([os.getpid(), child, errors, memory]).encode())
"""
