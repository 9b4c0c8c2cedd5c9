"""Who gains in ways of which the lock on gains is told little: Python code that processes of tests run."""

BY_THE_KERNEL = """
import os, sys
folder, rounds = sys.argv[1], int(sys.argv[2])
for round in range(rounds):
    child = os.fork()
    if not child:
        os.abort()
    os.waitpid(child, 0)                                    # which waits for the program that takes the core
print(*sorted({os.stat(each).st_uid for each in os.scandir(folder)}), len(os.listdir(folder)))
"""
"""Its end has the kernel start what core_pattern names."""

TRACED = (
    """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long] * 4
libc.ptrace.restype = ctypes.c_long
program, made, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3])
"""
    """
def trace(what):
    '''Exchange the result register whenever a system call of the child begins; how the child ends.'''
    child = os.fork()
    if not child:
        assert not libc.ptrace(0, 0, 0, 0)                  # PTRACE_TRACEME
        parameters = ctypes.create_string_buffer(120)
        if libc.syscall(425, 8, parameters) < 0:            # io_uring_setup
            os._exit(77)
        os.kill(os.getpid(), 19)                            # SIGSTOP
        what()
        os._exit(0)
    entering, status = True, os.waitpid(child, 0)[1]
    if os.WIFSTOPPED(status):
        libc.ptrace(0x4200, child, 0, 1 | 1 << 4 | 1 << 20) # PTRACE_SETOPTIONS: TRACESYSGOOD, TRACEEXEC, EXITKILL
    while os.WIFSTOPPED(status):
        if os.WSTOPSIG(status) == 0x85:
            if entering:
                assert not libc.ptrace(6, child, 80, 0)     # PTRACE_POKEUSER, of rax
            entering = not entering
        assert not libc.ptrace(24, child, 0, 0)             # PTRACE_SYSCALL
        status = os.waitpid(child, 0)[1]
    return os.waitstatus_to_exitcode(status)

def users():
    for user in (1001, 0):
        assert not libc.syscall(117, -1, user, -1), user    # setresuid
    assert not libc.syscall(105, 0)                         # setuid
    libc.syscall(122, 7)                                    # setfsuid

def namespace():
    assert not libc.syscall(117, 65534, 65534, 65534)
    assert not libc.syscall(272, 0x10000000)                # unshare, CLONE_NEWUSER

def execute():
    os.execv(program, [program, f"{made}/{os.getpid()}"])

print(*(sorted({trace(what) for _ in range(rounds)}) for what in (users, namespace, execute)))
print(*sorted({os.stat(each).st_uid for each in os.scandir(made)}), len(os.listdir(made)))
"""
)
"""A thread with rings of io_uring is traced, and its tracer writes where the kernel tells that a call goes on."""
