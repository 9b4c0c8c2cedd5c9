"""Where a compiled unit is taken from, and what is refused."""

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from krie.errors import KernelError
from krie.kernel.bpf import MapShape
from krie.kernel.btf import Btf
from krie.loader import unit_cache
from krie.loader.object import Object
from krie.loader.origin import Origin
from krie.loader.source import Unit
from krie.loader.unit_cache import _KEPT, Folders, Obtained, Store, obtain

KEY = "a" * 64
MADE = Object({"seen": MapShape(1, 8, 16, 32, 1, "seen")}, {"look": bytes(16)}, "a compiler")
OTHER = Object({}, {"other": bytes(8)})


def test_what_was_kept_comes_back(tmp_path: Path) -> None:
    store = Store(tmp_path / "new/folder")
    assert store.find(KEY) is None
    store.keep(KEY, MADE)
    assert store.find(KEY) == MADE
    assert store.problem == ""
    assert store.find("b" * 64) is None
    assert [each.name for each in (tmp_path / "new/folder").iterdir()] == [KEY]


@pytest.mark.parametrize("damage", ["bit", "short", "empty", "renamed", "writable", "folder", "link", "no object"])
def test_what_is_damaged_or_not_ours_is_not_taken(tmp_path: Path, damage: str) -> None:
    tmp_path.chmod(0o755)
    folder = tmp_path / "store"
    store = Store(folder)
    store.keep(KEY, MADE)
    file, key = folder / KEY, KEY
    content = file.read_bytes()
    if damage == "bit":
        file.write_bytes(content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
    elif damage == "short":
        file.write_bytes(content[: len(content) // 2])
    elif damage == "empty":
        file.write_bytes(b"")
    elif damage == "renamed":
        file = file.rename(folder / ("b" * 64))
        key = file.name
    elif damage == "link":
        elsewhere = tmp_path / "open"
        elsewhere.mkdir()
        elsewhere.chmod(0o777)
        file.rename(elsewhere / KEY)
        file.symlink_to(elsewhere / KEY)
    elif damage == "no object":
        file.write_bytes(unit_cache._encoded(KEY, Object({}, {"look": bytes(4)})))
    else:
        (file if damage == "writable" else folder).chmod(0o777)
    assert store.find(key) is None
    where = {"folder": folder, "link": tmp_path / "open"}.get(damage, file)
    assert store.problem.startswith(f"{where}: ")
    assert "\n" not in store.problem


def test_json_that_is_too_deep_is_of_no_use(tmp_path: Path) -> None:
    folder = tmp_path / "store"
    store = Store(folder)
    store.keep(KEY, MADE)
    body = b"[" * 200_000
    (folder / KEY).write_bytes(hashlib.sha256(body).hexdigest().encode() + b"\n" + body)
    assert store.find(KEY) is None
    assert store.problem.startswith(f"{folder / KEY}: ")


def test_only_what_was_kept_here_is_dropped(tmp_path: Path) -> None:
    others = {"somebody's", "c" * 64, "d" * 64, "e" * 64, "f" * 64}  # as a store of container images names its own
    for each in others:
        (tmp_path / each).write_text("{}")
        os.utime(tmp_path / each, (0, 0))
    (tmp_path / ("f" * 64)).write_bytes(unit_cache._encoded("c" * 64, MADE))  # ours, but renamed
    os.utime(tmp_path / ("f" * 64), (0, 0))
    store = Store(tmp_path)
    for number in range(4):
        store.keep(f"{number}" * 64, MADE, 2)
    assert store.problem == ""
    assert {each.name for each in tmp_path.iterdir()} == others | {"2" * 64, "3" * 64}


def test_nothing_is_kept_where_others_could_change_it(tmp_path: Path) -> None:
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(0o777)
    store = Store(folder)
    store.keep(KEY, MADE)
    assert list(folder.iterdir()) == []
    assert store.problem == f"{folder}: can be changed by other users: chmod go-w {folder}"
    (tmp_path / "file").touch()
    store = Store(tmp_path / "file")
    store.keep(KEY, MADE)
    assert "File exists" in store.problem


def test_only_the_youngest_are_kept(tmp_path: Path) -> None:
    store = Store(tmp_path)
    for index in range(_KEPT):
        store.keep(f"{index:064}", MADE, _KEPT)
        os.utime(tmp_path / f"{index:064}", (index, index))
    store.touch(f"{0:064}")
    store.keep(KEY, MADE, _KEPT)
    assert {each.name for each in tmp_path.iterdir()} == {
        KEY,
        *(f"{index:064}" for index in range(_KEPT) if index != 1),
    }


class Keyed(Unit):
    """A unit whose key is KEY."""

    def key(self, btf: Btf, flags: object) -> str:
        return KEY


UNIT = Keyed("", {}, (), (), (), (), ("process", "sample"), ())


class Source:
    """Asks for the unit, and counts what was compiled for it."""

    def __init__(self, folder: Path) -> None:
        self.ready, self.cache, self.compiled = folder / "ready", folder / "cache", 0
        self.makes: Callable[[], Object] = lambda: MADE

    def obtain(self, *, ready: bool = True, cache: bool = True) -> Obtained:
        folders = Folders(str(self.ready) if ready else "", str(self.cache) if cache else "")
        return obtain(UNIT, None, [], folders, self.compile)  # type: ignore[arg-type]

    def compile(self, unit: Unit, btf: Btf, flags: Sequence[str]) -> Object:
        self.compiled += 1
        return self.makes()


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Source:
    monkeypatch.setattr(unit_cache, "identity", lambda: "one compiler")
    return Source(tmp_path)


def test_it_is_compiled_once_and_then_cached(source: Source) -> None:
    assert source.obtain(ready=False) == Obtained(MADE, Origin.COMPILED)
    assert source.obtain(ready=False) == Obtained(MADE, Origin.CACHE)
    assert source.compiled == 1
    assert source.obtain(ready=False, cache=False) == Obtained(MADE, Origin.COMPILED)


def test_what_was_compiled_elsewhere_comes_first(source: Source) -> None:
    source.obtain(ready=False)
    Store(source.ready).keep(KEY, OTHER)
    assert source.obtain() == Obtained(OTHER, Origin.COMPILED_DIR)


def test_another_compiler_has_another_cache_but_the_same_compiled_dir(
    source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    source.obtain(ready=False)
    monkeypatch.setattr(unit_cache, "identity", lambda: "another compiler")
    assert source.obtain(ready=False).origin is Origin.COMPILED
    Store(source.ready).keep(KEY, OTHER)
    assert source.obtain().origin is Origin.COMPILED_DIR


def test_nothing_is_found_again_where_the_compiler_is_not_known(
    source: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unit_cache, "identity", lambda: "")
    assert [source.obtain(ready=False).origin for _ in range(2)] == [Origin.COMPILED] * 2


def test_what_is_missing_or_refused_is_compiled_and_told(source: Source) -> None:
    found = source.obtain()
    assert found.origin is Origin.COMPILED
    assert found.problem == (
        f"agent.compiled_dir: {source.ready} has nothing for this kernel and process, sample ({KEY})"
    )
    Store(source.ready).keep(KEY, OTHER)
    (source.ready / KEY).write_bytes(b"damaged")
    assert source.obtain() == Obtained(MADE, Origin.CACHE, f"agent.compiled_dir: {source.ready / KEY}: is damaged")


def test_without_a_compiler_one_error_says_all(source: Source) -> None:
    def none() -> Object:
        raise KernelError("loading the compiler", 0, "install the package python3-bpfcc")

    source.makes = none
    with pytest.raises(KernelError) as raised:
        source.obtain()
    assert str(raised.value) == (
        f"agent.compiled_dir: {source.ready} has nothing for this kernel and process, sample ({KEY}); "
        "loading the compiler; install the package python3-bpfcc"
    )


def test_a_cache_that_others_can_change_is_told(source: Source) -> None:
    source.cache.mkdir()
    source.cache.chmod(0o777)
    assert source.obtain(ready=False).problem.startswith(f"agent.cache_dir: {source.cache}: can be changed by other")
