"""Code of victims that forbids themselves something, by filters that let everything through."""

CONFINE = """
import struct
_allow = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0x7FFF0000), 8)
_filter = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", 1, ctypes.addressof(_allow)), 16)
def confine(flags=0):
    assert libc.syscall(317, 1, flags, _filter) == 0  # seccomp(SECCOMP_SET_MODE_FILTER)
confine()
"""
"""`confine` puts one more filter before the others; the process has one."""
IN_CHILD = """
child = os.fork()
if child:
    os.waitpid(child, 0)
    os._exit(0)
confine()
"""
"""What follows is done by a child that has one filter more than its parent."""
CONFINED_LEGALLY = """
import threading
all_at_once, compared = threading.Event(), threading.Event()
def write():
    all_at_once.wait()
    os.close(os.open(f"/proc/self/fd/{memory}", os.O_WRONLY))
    compared.set()
thread = threading.Thread(target=write)
thread.start()
for _ in range(30):
    confine(1)  # SECCOMP_FILTER_FLAG_TSYNC
all_at_once.set()
thread.join()
assert compared.is_set()
for _ in range(100):
    thread = threading.Thread(target=lambda: os.close(os.open(f"/proc/self/fd/{memory}", os.O_WRONLY)))
    thread.start()
    confine(1)
    os.close(os.open(f"/proc/self/fd/{memory}", os.O_WRONLY))
    thread.join()
for _ in range(20):
    child = os.fork()
    if not child:
        confine()
        os.execv("/bin/true", ["true"])
    os.waitpid(child, 0)
"""
"""Needs `memory`, a descriptor of a file in memory."""
