"""Files of modules."""

import lzma
import shutil
import subprocess

import pytest
from krie import ModuleFile

from ..module_writer import BUILD_ID, Module

MODULE = Module("caller")
MODULE.branch(0xE8, "caller", "printk")


@pytest.mark.parametrize("wrong", [b"", b"MZ", b"\x7fELF\x02\x01" + bytes(100), MODULE.file()[:-100]])
def test_what_is_no_module_is_told(wrong: bytes) -> None:
    with pytest.raises(ValueError, match="it is no"):
        ModuleFile(wrong)


def test_modules_may_be_packed() -> None:
    plain = MODULE.file()
    packed = lzma.compress(plain)
    assert ModuleFile(packed).symbols == ModuleFile(plain).symbols
    assert ModuleFile(packed).build_id == BUILD_ID
    with pytest.raises(ValueError, match="damaged"):
        ModuleFile(packed[:100])


@pytest.mark.skipif(shutil.which("zstd") is None, reason="zstd is not installed")
def test_modules_may_be_packed_by_zstd() -> None:
    plain = MODULE.file()
    packed = subprocess.run(["zstd", "-c"], input=plain, capture_output=True, check=True).stdout
    assert ModuleFile(packed).symbols == ModuleFile(plain).symbols
    with pytest.raises(ValueError, match="damaged"):
        ModuleFile(packed[:100])
