"""What tests of the kernel's side share."""

import pytest
from krie.kernel.btf import VMLINUX, Btf

from ..switched_kernel import kernel  # noqa: F401 - a fixture


@pytest.fixture(scope="module")
def btf() -> Btf:
    """The types of the kernel that runs here."""
    if not VMLINUX.exists():
        pytest.skip(f"no {VMLINUX}")
    return Btf()
