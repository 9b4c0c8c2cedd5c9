"""What tests of the kernel's side share."""

from ..switched_kernel import kernel  # noqa: F401 - a fixture
