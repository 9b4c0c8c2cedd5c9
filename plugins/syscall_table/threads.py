"""Functions that kernel threads run, of all tasks that the kernel lists."""

from __future__ import annotations

from collections.abc import Iterator

from krie import KernelError

from .entry import Entry
from .walker import Walker

FIRST = "init_task"
SYMBOLS = (FIRST,)
FIELDS = (
    ("task_struct", "tasks"),
    ("task_struct", "flags"),
    ("task_struct", "worker_private"),
    ("task_struct", "set_child_tid"),
    ("kthread", "threadfn"),
)
_KERNEL_THREAD = 0x0020_0000
"""PF_KTHREAD."""


def threads(walker: Walker) -> Iterator[Entry]:
    """Raises `KernelError` where the kernel does not tell where tasks are."""
    listed, flags, function = (
        walker.offset(*each) for each in (("task_struct", "tasks"), ("task_struct", "flags"), ("kthread", "threadfn"))
    )
    # Before e32cf5dfbe22 (5.17) a kernel thread's struct kthread was where a process has its set_child_tid.
    private = walker.offsets.get(("task_struct", "worker_private"))
    if private is None:
        private = walker.offset("task_struct", "set_child_tid")
    if not (first := walker.address(FIRST)):
        raise KernelError("looking for tasks", 0)
    head = first + listed
    for each in walker.chain(walker.number(head), head):
        task = each - listed
        if not walker.number(task + flags, 4) & _KERNEL_THREAD:
            continue
        if (thread := walker.number(task + private)) and (found := walker.number(thread + function)):
            yield Entry("kernel threads", thread + function, found)
