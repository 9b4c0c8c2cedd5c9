"""Victims of an enforcing agent: processes that a rule of enforcing.rego hits when they write its number."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from krie.testing.victims import Interpreter

Run = Callable[..., subprocess.CompletedProcess[str]]
"""Runs a victim's code with arguments; raises as `Victims.run` does."""
SYSCTL = "/proc/sys/kernel/printk_ratelimit_burst"
REFUSED, POISONED, KILLED, SOON_FREE, HOST, MANY, COVERED = range(1001, 1008)
WRITE = f"""
import errno, time

def write(number):
    '''0, or the error of the write.'''
    file = os.open({SYSCTL!r}, os.O_WRONLY)
    try:
        os.write(file, b'%d' % number)
        return 0
    except OSError as error:
        return error.errno
    finally:
        os.close(file)

def until(test, number):
    '''Try the operation until its answer is this one; a decision of user space takes a moment.'''
    for _ in range(6000):
        answer = test()
        if answer == number:
            return answer
        time.sleep(0.05)
    return answer

def denied(operation):
    '''0, or the error.'''
    try:
        operation()
        return 0
    except OSError as error:
        return error.errno

def called(number, *arguments):
    '''0, or the error of a system call.'''
    return ctypes.get_errno() if libc.syscall(number, *arguments) < 0 else 0
"""


def copied_python(folder: Path) -> Path:
    """A Python of the victims' own: the test's own one is protected, so that it can look on."""
    copy = folder / "victim-python"
    shutil.copy(os.path.realpath(sys.executable), copy)
    return copy


@contextmanager
def running(python: Path) -> Iterator[Interpreter]:
    """Runs victims by a Python that lies elsewhere than its library."""
    made = Interpreter("/usr/bin/env", f"PYTHONHOME={sys.base_prefix}", str(python), "-S")
    try:
        yield made
    finally:
        made.close()


ENFORCEMENT: Mapping[str, object] = {
    "protected": [os.path.realpath(sys.executable)],
    "guard": False,
    "host_scope": True,
    "breaker_processes": 3,
    "breaker_period_s": 900,  # four victims take minutes where guests share a processor with others
}
HIJACKED = """
int example_hijacked(struct pt_regs *ctx)
{
    struct krie_answer answer;
    struct example_seen *record;
    const struct cred *cred;

    if (!krie_enter())
        return 0;
    cred = KRIE_READ(task_struct, krie_current(), cred);
    if (KRIE_READ(cred, cred, euid.val) != 65534)
        return 0;
    answer = krie_kill(KRIE_SENSOR_EXAMPLE);
    record = krie_reserve_example_seen(&answer, KRIE_CAN_KILL);
    if (!record)
        return 0;
    record->count = 1;
    krie_stamp(&record->header, &answer);
    krie_submit_example_seen(record);
    return 0;
}
"""
"""Kills whoever is nobody and gets other credentials, in the program itself."""
