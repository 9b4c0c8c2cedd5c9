"""What was compiled here works in a guest that cannot compile, with a plugin from outside."""

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from krie.testing.lab import boot
from krie.testing.lab.cache import Cache
from krie.testing.lab.compiled import Configuration, compile_for
from krie.testing.lab.kernels import find

ROOT = Path(__file__).parents[2]
_HIDE = """
for each in /usr/lib/x86_64-linux-gnu/libbcc.so.0 /usr/lib/x86_64-linux-gnu/libLLVM*.so*; do
    mount --bind /dev/null "$each"
done
mount -t tmpfs none /usr/lib/python3/dist-packages/bcc
exec python tests/lab/without_compiler.py "$@"
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """Not in /tmp, which guests do not see."""
    made = ROOT / f".cache/compiled-{os.getpid()}"
    made.mkdir(mode=0o755, parents=True)
    yield made
    shutil.rmtree(made)


def test_a_guest_without_a_compiler_runs_what_was_compiled_here(folder: Path) -> None:
    kernel = find("debian-6.12", Cache(), print)
    plugin, compiled = folder / "plugin", folder / "compiled"
    shutil.copytree(ROOT / "examples/krie-clock/krie_clock", plugin / "krie_clock")
    metadata = plugin / "krie_clock-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: krie-clock\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[krie]\nclock = krie_clock.plugin:Plugin\n")
    compile_for(kernel, [Configuration(("runtime_integrity", "smep_smap", "clock"), (plugin,))], compiled)
    said: list[bytes] = []
    command = ["bash", "-euc", _HIDE, "bash", str(compiled), str(plugin)]
    outcome = boot.run(kernel, command, boot.Machine(), timeout_s=1500, output=said.append)
    text = b"".join(said).decode()
    assert (outcome.end, outcome.status) == (boot.End.EXITED, 0), text
    found = json.loads(text.splitlines()[-1])
    assert "bcc" in found["compiler"]
    assert found["started"]["programs"] == "compiled_dir"
    assert found["started"]["alive"] > 10
    assert found["clock"] == 1
    assert found["status"] == 3
    assert found["said"].count("\n") == 1
    assert "has nothing for this kernel and containment, guard, process, smep_smap" in found["said"]
    assert "install the package python3-bpfcc" in found["said"]
