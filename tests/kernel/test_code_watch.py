"""What the agent's process that compares code says of the kernel that runs here."""

import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from krie import KernelMemory
from krie.kernel.bpf_functions import bpf_functions
from krie.kernel.memory import open_memories
from krie.plugins.syscall_table.code_watch import CodeWatch
from krie.testing.patience import PATIENCE_S

pytestmark = pytest.mark.once


@pytest.fixture(scope="module")
def memory() -> Iterator[KernelMemory]:
    with ExitStack() as stack:
        yield open_memories(stack)[0]


def test_the_running_kernels_code_is_compared_and_nothing_is_unexplained(memory: KernelMemory) -> None:
    watch = CodeWatch(memory)
    try:
        compared = []
        for _ in range(2):
            deadline = time.monotonic() + PATIENCE_S
            while not watch.idle:
                assert list(watch.poll()) == []
                assert time.monotonic() < deadline
                time.sleep(0.01)
            compared.append(watch.compared())
            watch.ask()
        assert compared[0] > 0
        assert compared[1] > 10_000_000 or watch.reference == "none"
    finally:
        watch.close()


def test_code_of_bpf_is_where_the_kernel_says(memory: KernelMemory) -> None:
    own = [each for each in bpf_functions() if each.name.startswith("krie_read")]
    assert len(own) >= 2
    for each in own:
        assert len(memory.read(each.start, each.size)) == each.size > 40
