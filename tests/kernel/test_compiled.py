"""What was compiled becomes maps and programs of this kernel, and is taken again as it was."""

import hashlib
import json
import os
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from krie.errors import KernelError
from krie.kernel import bpf
from krie.kernel.bpf import MapShape
from krie.loader.compiled import instantiate
from krie.loader.launcher import LoadedSet, LoaderProcess
from krie.loader.messages import Request
from krie.loader.object import Object
from krie.loader.request import sensor_request
from krie.processes.sensor import process_sensor
from krie.testing.agent import RunningAgent

LOAD_MAP, EXIT = 0x18, 0x95
MADE = Object(
    {
        "counts": MapShape(bpf.MapType.PERCPU_ARRAY, 4, 24, 1, 0, "counts"),
        "krie_tables": MapShape(bpf.MapType.ARRAY, 4, 4, 1, 0, "krie_tables"),
        "seen": MapShape(bpf.MapType.HASH, 8, 16, 32, 1, "seen"),  # BPF_F_NO_PREALLOC
    },
    {"look": struct.pack("<BBhiBBhi", LOAD_MAP, 0x11, 0, 2, 0, 0, 0, 0) + struct.pack("<BBhi", EXIT, 0, 0, 0)},
)
COMPILE = """
import hashlib, json, os, sys, tempfile
from pathlib import Path
from krie.agent.loading import sensor_request
from krie.kernel.btf import Btf
from krie.loader.compiler import FLAGS, QUIET, compile_unit
from krie.loader.messages import Request
from krie.loader.source import assemble
from krie.processes.sensor import process_sensor
user = int(sys.argv[1])
os.setresgid(user, user, user)
os.setresuid(user, user, user)
request = Request((sensor_request(process_sensor()),), 16, allow_every_syscall=False)
btf = Btf()
unit = assemble(map(request.source, request.sensors), btf)
with tempfile.TemporaryDirectory() as folder:
    unit.write(Path(folder), btf)
    made = compile_unit(unit.text, Path(folder), [*FLAGS, *QUIET])
print(json.dumps(made.to_json(), sort_keys=True))
"""


@pytest.fixture
def room_for_maps() -> None:
    """Kernels before 5.11 count the maps of all of root's processes; the loader lifts that limit for itself."""
    bpf.allow_locked_memory()


@pytest.mark.usefixtures("room_for_maps")
def test_maps_are_made_as_the_object_says_but_for_sizes_that_are_given() -> None:
    made = instantiate(MADE, {"counts": 3}, kinds=2)
    assert bpf.map_shape(made.maps["counts"]) == MapShape(bpf.MapType.PERCPU_ARRAY, 4, 24, 3, 0, "counts")
    assert bpf.map_shape(made.maps["seen"]) == MADE.maps["seen"]
    assert bpf.map_shape(made.maps["krie_tables"]).type == bpf.MapType.ARRAY_OF_MAPS
    assert struct.unpack_from("<i", made.instructions("look"), 4)[0] == made.maps["seen"]
    with pytest.raises(KernelError, match="no function other"):
        made.instructions("other")
    made.close()


@pytest.mark.usefixtures("room_for_maps")
def test_what_the_kernel_refuses_leaves_no_map_behind() -> None:
    before = set(os.listdir("/proc/self/fd"))
    with pytest.raises(KernelError, match="creating map seen: EINVAL"):
        instantiate(MADE, {"seen": 0}, kinds=2)
    assert set(os.listdir("/proc/self/fd")) == before


@pytest.mark.once
def test_anybody_compiles_the_same() -> None:
    """Root and others, whatever the kernel shows them of itself."""
    hiding = ["unshare", "-m", "sh", "-c", 'mount --bind /dev/null /proc/kallsyms && exec "$@"', "sh"]
    made = {
        subprocess.run([*prefix, sys.executable, "-c", COMPILE, user], check=True, capture_output=True).stdout
        for prefix, user in (([], "0"), ([], "65534"), (hiding, "65534"))
    }
    assert len(made) == 1
    assert "krie_inspect" in json.loads(made.pop())["functions"]


def load(folder: Path) -> LoadedSet:
    request = Request((sensor_request(process_sensor()),), 16, allow_every_syscall=False, cache_dir=str(folder))
    with LoaderProcess(600) as child:
        child.features()
        return child.load(request, dict)  # nobody holds it: tests leave ftrace alone


def test_the_loader_takes_what_it_kept(tmp_path: Path) -> None:
    first = load(tmp_path)
    first.close()
    assert len(list(tmp_path.iterdir())) == 1
    second = load(tmp_path)
    second.close()
    assert (first.loaded.origin, second.loaded.origin) == ("compiled", "cache")
    assert replace(second.loaded, origin="compiled") == first.loaded
    assert first.loaded.cache_problem == ""


@pytest.mark.once
def test_what_was_kept_and_is_wrong_is_not_taken(tmp_path: Path) -> None:
    load(tmp_path).close()
    (file,) = tmp_path.iterdir()
    content = json.loads(file.read_bytes().partition(b"\n")[2])
    assert content["functions"].pop("krie_peek")
    body = json.dumps(content).encode()
    file.write_bytes(hashlib.sha256(body).hexdigest().encode() + b"\n" + body)
    with pytest.raises(KernelError, match="no function krie_peek"):
        load(tmp_path)
    file.write_bytes(b"damaged")
    made = load(tmp_path)
    made.close()
    assert made.loaded.cache_problem == f"agent.cache_dir: {file}: is damaged"
    assert made.loaded.origin == "compiled"


@pytest.mark.once
def test_an_agent_says_why_it_compiled_anew(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(0o777)
    with RunningAgent(tmp_path, plugins={}, agent={"cache_dir": str(folder)}) as agent:
        pass
    assert f"programs were compiled here: agent.cache_dir: {folder}: can be changed by other users" in agent.stderr
