"""Maps by descriptor, as far as no kernel is asked."""

import pytest
from krie import KernelError
from krie.kernel.bpf import MapType
from krie.kernel.maps import Map, possible_cpus


@pytest.mark.parametrize(("value_bytes", "of_one_cpu"), [(8, 8), (12, 16), (1, 8), (16, 16)])
def test_values_of_all_cpus_are_each_filled_up_to_eight_bytes(value_bytes: int, of_one_cpu: int) -> None:
    counts = Map("counts", -1, MapType.PERCPU_ARRAY, 4, value_bytes, 1)
    with pytest.raises(KernelError, match=f"sizes are 4 and {of_one_cpu * possible_cpus()} bytes"):
        counts.set(bytes(4), b"")


@pytest.mark.parametrize("key", [b"", bytes(3), bytes(5)])
def test_keys_of_another_size_are_never_passed_on(key: bytes) -> None:
    made = Map("known", -1, MapType.HASH, 4, 8, 1)
    with pytest.raises(KernelError, match="its keys have 4 bytes"):
        made.get(key)
    with pytest.raises(KernelError, match="sizes are 4 and 8 bytes"):
        made.set(key, bytes(8))
