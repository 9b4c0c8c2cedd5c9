"""Kernel memory as plugins read it."""

from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from krie import KernelError, KernelMemory, addresses
from krie.agent.loading import load_sensors
from krie.config import AgentConfig, Config
from krie.testing.needs import compiled_dir

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def memory() -> Iterator[KernelMemory]:
    with ExitStack() as stack:
        config = Config(agent=AgentConfig(compiled_dir=compiled_dir()))
        yield load_sensors(config, "krie.toml", lambda fault: pytest.fail(fault.error), stack, contain=False).memory


def test_more_than_one_run_reads(memory: KernelMemory) -> None:
    (start,) = addresses({"_stext"})["_stext"]
    whole = memory.read(start, 10_000)
    assert len(whole) == 10_000
    assert any(whole)
    pieces = [memory.read(start, 4_000), memory.read(start + 4_000, 6_000)]
    assert b"".join(pieces) == whole
    assert memory.number(start + 8) == int.from_bytes(whole[8:16], "little")


@pytest.mark.parametrize("address", [0, 0x1000, 0xDEAD_0000_0000_0000, 0xFFFF_FFFF_FFFF_F000])
def test_what_cannot_be_read_is_an_error(memory: KernelMemory, address: int) -> None:
    with pytest.raises(KernelError, match=f"reading kernel memory at {address:#x}: EFAULT"):
        memory.read(address, 8)


def test_symbols_that_are_not_there_are_left_out() -> None:
    assert addresses({"krie_no_such_symbol", "krie:nothing"}) == {}
