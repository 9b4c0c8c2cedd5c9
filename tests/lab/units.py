"""All that agents and loaders of the kernel tests ask for, compiled here for a guest: see `krie.testing.lab.compiled`.

Guests get the folder by the variable KRIE_LAB_COMPILED. What one compiles nevertheless lies in its /var/cache/krie
then, but for what the tests of compiling keep elsewhere.
"""

import shutil
import tempfile
from pathlib import Path

from krie import Features, Sensor
from krie.plugin.contract import joined
from krie.plugins.runtime_integrity.config import RuntimeIntegrityConfig
from krie.plugins.runtime_integrity.plugin import RuntimeIntegrity
from krie.processes.sensor import process_sensor
from krie.testing.lab.cache import Cache
from krie.testing.lab.compiled import Configuration, compile_for, compile_sensors
from krie.testing.lab.kernels import Kernel

from ..kernel import (
    enforcing,
    example,
    test_attach_types,
    test_background,
    test_kernel_tables,
    test_kernel_tier,
    test_refusal,
    test_shared_functions,
)
from ..policy.sample import Sample

_EXAMPLE = Path(__file__).parents[2] / "examples/krie-clock"
SHIPPED = ("runtime_integrity", "smep_smap", "syscall_table")
LOCKS = "cfi"
"""Which few agents of the tests have."""
EXAMPLES = {
    "attach_types": ((), test_attach_types.SOURCE, example.COUNT),
    "enforcement": (("runtime_integrity",), enforcing.HIJACKED, example.COUNT),
    "kernel_tier": ((), test_kernel_tier.PROGRAM, test_kernel_tier.FIELDS),
    "refusal": ((), test_refusal.PROGRAM, example.COUNT),
    **{
        name: (others, test_shared_functions.SOURCE, example.COUNT)
        for name, others in test_shared_functions.BY_OTHERS.items()
    },
}
"""Further plugins, C and fields, by the test that writes such a plugin `example`."""


def compile_units(kernel: Kernel, cache: Cache) -> Path:
    """Have everything in a folder of the cache, which is returned. Raises `KrieError`."""
    folder = cache.folder("compiled")
    with cache.locked("compiled"), tempfile.TemporaryDirectory() as work:
        plugins = {
            name: example.write(Path(work) / name, {}, text, "", fields) for name, (_, text, fields) in EXAMPLES.items()
        }
        clock = Path(work) / "clock"
        shutil.copytree(_EXAMPLE / "krie_clock", clock / "krie_clock")
        metadata = clock / "krie_clock-1.0.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: krie-clock\nVersion: 1.0\n")
        (metadata / "entry_points.txt").write_text("[krie]\nclock = krie_clock.plugin:Plugin\n")
        shipped = (Configuration(each) for each in ((), *((one,) for one in SHIPPED), SHIPPED[:2], SHIPPED))
        locks = (Configuration((*others, LOCKS)) for others in (SHIPPED, ("smep_smap",)))
        written = (Configuration((*EXAMPLES[name][0], "example"), (place,)) for name, place in plugins.items())
        compile_for(kernel, [*shipped, *locks, *written, Configuration(("clock",), (clock,))], folder)
        timed = Path(work) / "example.bpf.c"
        timed.write_text(test_background.SOURCE)
        example_sensor = Sensor("example", "1", (), (test_background.Timed,), (timed,))
        whole = joined(RuntimeIntegrity().krie_sensor(RuntimeIntegrityConfig(), Features()))
        list(compile_sensors(kernel, [(process_sensor(),), (process_sensor(), example_sensor)], folder))
        timed.write_text(test_kernel_tables.SOURCE)
        sample = Sensor("sample", "1", events=(Sample,), sources=(timed,))
        list(compile_sensors(kernel, [(whole, sample)], folder, trial=True))
    return folder
