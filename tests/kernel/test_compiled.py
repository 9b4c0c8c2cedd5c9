"""What was compiled once is taken again, as it was, and only from where nobody else can write."""

import hashlib
import json
import os
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from krie.armed import sensor_request
from krie.errors import KernelError
from krie.kernel import bpf, compiled
from krie.kernel.compiled import _KEPT, Cache, Compiled, key_of
from krie.kernel.launcher import LoadedSet, LoaderProcess
from krie.kernel.messages import Request
from krie.process_sensor import process_sensor
from krie.testing.agent import RunningAgent

KEY = "a" * 64
LOAD_MAP, NUMBER_LIKE_A_MAP, SUM, EXIT = 0x18, 0x18, 0x0F, 0x95
Keep = Callable[[str], Compiled]


def instruction(operation: int, registers: int = 0, immediate: int = 0) -> bytes:
    return struct.pack("<BBhi", operation, registers, 0, immediate)


@pytest.fixture
def unit() -> Iterator[Compiled]:
    """Two maps, and a function that refers to both of them and holds a number that is none."""
    maps = {
        "counts": bpf.map_create(bpf.MapType.PERCPU_ARRAY, 4, 24, 3, "counts"),
        "seen": bpf.map_of_shape(bpf.MapShape(bpf.MapType.HASH, 8, 16, 32, 1, "seen")),  # BPF_F_NO_PREALLOC
    }
    code = b"".join(
        (
            instruction(LOAD_MAP, 0x11, maps["seen"]) + instruction(0),
            instruction(NUMBER_LIKE_A_MAP, 0x02, maps["seen"]) + instruction(0),
            instruction(LOAD_MAP, 0x11, maps["counts"]) + instruction(0),
            instruction(LOAD_MAP, 0x00) + instruction(LOAD_MAP, 0x10, maps["seen"]),  # the second half of a number
            instruction(0xB7),
            instruction(EXIT),
        )
    )
    yield Compiled(maps, {"look": code})
    for each in maps.values():
        os.close(each)


def test_what_was_kept_comes_back_with_maps_of_its_own(unit: Compiled, tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    assert cache.find(KEY) is None
    cache.keep(KEY, unit)
    found = cache.find(KEY)
    assert found is not None
    assert cache.problem == ""
    assert list(found.maps) == ["counts", "seen"]
    for name, descriptor in found.maps.items():
        assert bpf.map_shape(descriptor) == bpf.map_shape(unit.maps[name])
        assert bpf.map_id(descriptor) != bpf.map_id(unit.maps[name])
    code, before = found.instructions("look"), unit.instructions("look")
    assert struct.unpack_from("<i", code, 4)[0] == found.maps["seen"]
    assert struct.unpack_from("<i", code, 36)[0] == found.maps["counts"]
    same = bytearray(code)
    same[4:8], same[36:40] = before[4:8], before[36:40]
    assert bytes(same) == before, "nothing else changed"
    with pytest.raises(KernelError, match="no function other"):
        found.instructions("other")
    for each in found.maps.values():
        os.close(each)


@pytest.mark.parametrize("damage", ["bit", "short", "empty", "writable", "folder"])
def test_what_is_damaged_or_not_ours_is_not_taken(unit: Compiled, tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "cache"
    cache = Cache(folder)
    cache.keep(KEY, unit)
    file = folder / KEY
    content = file.read_bytes()
    if damage == "bit":
        file.write_bytes(content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
    elif damage == "short":
        file.write_bytes(content[: len(content) // 2])
    elif damage == "empty":
        file.write_bytes(b"")
    else:
        (file if damage == "writable" else folder).chmod(0o777)
    assert cache.find(KEY) is None
    assert cache.problem.startswith(f"{folder if damage == 'folder' else file}: ")


def test_nothing_is_kept_where_others_could_change_it(unit: Compiled, tmp_path: Path) -> None:
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(0o777)
    cache = Cache(folder)
    cache.keep(KEY, unit)
    assert list(folder.iterdir()) == []
    assert cache.problem == f"{folder}: can be changed by other users: chmod go-w {folder}"
    (tmp_path / "file").touch()
    cache = Cache(tmp_path / "file")
    cache.keep(KEY, unit)
    assert "File exists" in cache.problem


def test_only_the_youngest_are_kept(unit: Compiled, tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    for index in range(_KEPT):
        cache.keep(f"{index:064}", unit)
        os.utime(tmp_path / f"{index:064}", (index, index))
    found = cache.find(f"{0:064}")  # used, and by that the youngest
    assert found is not None
    for each in found.maps.values():
        os.close(each)
    cache.keep(KEY, unit)
    assert {each.name for each in tmp_path.iterdir()} == {
        KEY,
        *(f"{index:064}" for index in range(_KEPT) if index != 1),
    }


def test_the_key_covers_text_headers_and_flags(tmp_path: Path) -> None:
    header = tmp_path / "include/linux/types.h"
    header.parent.mkdir(parents=True)
    header.write_text("typedef int s32;\n")
    keys = [key_of("int x;", tmp_path, ["-a", "-b"])]
    assert key_of("int x;", tmp_path, ["-a", "-b"]) == keys[0]
    keys += [key_of("int y;", tmp_path, ["-a", "-b"]), key_of("int x;", tmp_path, ["-a-b"])]
    header.write_text("typedef long s32;\n")
    keys += [key_of("int x;", tmp_path, ["-a", "-b"])]
    header.rename(tmp_path / "include/types.h")
    keys += [key_of("int x;", tmp_path, ["-a", "-b"])]
    assert len(set(keys)) == 5


def test_nothing_is_found_again_where_the_compiler_is_not_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiled, "_LIBRARIES", tmp_path)
    assert key_of("int x;", tmp_path, []) != key_of("int x;", tmp_path, [])


def load(folder: Path) -> LoadedSet:
    request = Request((sensor_request(process_sensor()),), 16, allow_every_syscall=False, cache_dir=str(folder))
    with LoaderProcess(600) as child:
        child.features()
        return child.load(request)


def test_the_loader_takes_what_it_kept(tmp_path: Path) -> None:
    first = load(tmp_path)
    first.close()
    (file,) = tmp_path.iterdir()
    second = load(tmp_path)
    second.close()
    assert second.loaded == first.loaded
    assert first.loaded.cache_problem == ""
    content = json.loads(file.read_bytes().partition(b"\n")[2])
    assert content["functions"].pop("krie_peek")
    body = json.dumps(content).encode()
    file.write_bytes(hashlib.sha256(body).hexdigest().encode() + b"\n" + body)
    with pytest.raises(KernelError, match="no function krie_peek"):
        load(tmp_path)
    file.write_bytes(b"damaged")
    third = load(tmp_path)
    third.close()
    assert third.loaded.cache_problem == f"{file}: is damaged"


@pytest.mark.once
def test_an_agent_says_why_it_compiled_anew(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(0o777)
    with RunningAgent(tmp_path, plugins={}, agent={"cache_dir": str(folder)}) as agent:
        pass
    assert f"agent.cache_dir: compiled anew: {folder}: can be changed by other users" in agent.stderr
