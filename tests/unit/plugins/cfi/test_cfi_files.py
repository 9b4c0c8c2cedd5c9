"""What is declared, what is filed, and kernels in files."""

import json
from pathlib import Path

import pytest
from krie.errors import ConfigError, LabError
from krie.plugins.cfi import boot_image, lock_file, locks
from krie.plugins.cfi.declaration import parse, shipped
from krie.plugins.cfi.live import BOUNDS, code_of, layout, locate
from krie.testing.lab import kernels
from krie.testing.lab.cache import Cache

LOCKS = sorted(Path(locks.__path__[0]).glob("*.json"))
RENEW = "krie cfi derive --kernel {} --output plugins/cfi/locks; and review it (krie cfi diff OLD NEW)"
GOOD = {"schema": 1, "release": "6.1", "build_id": "00112233", "functions": {"f": {"callers": ["a+0x1"], "taken": []}}}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("schema = 2", "schema"),
        ("schema = 1\nmore = 1\n[functions]", "more: Extra inputs"),
        ('schema = 1\n[functions.f]\nnumber = 1\nwhy = ""', r"functions\.f\.why"),
        ('schema = 1\n[functions.f]\nnumber = 32\nwhy = "a"', r"functions\.f\.number: 32 must be below 32"),
        (
            'schema = 1\n[functions.f]\nnumber = 1\nwhy = "a"\n[functions.g]\nnumber = 1\nwhy = "a"',
            "no other function's",
        ),
        (
            'schema = 1\n[functions]\n[gains.f]\ngain = ["uid"]\nright = "users"\nwhy = "a"',
            "no system call that KRIe knows",
        ),
        ('schema = 1\n[functions]\n[gains.write]\ngain = ["uid"]\nwhy = "a"', r"gains\.write\.right"),
        ('schema = 1\n[functions]\n[gains.write]\ngain = ["all"]\nwhy = "a"', r"gains\.write\.gain"),
        ("schema = ", "is not valid TOML"),
        ('schema = 1\n[functions]\n[indirect.g]\ncallers = []\nwhy = "a"', r"indirect\.g: .*say who calls it"),
    ],
)
def test_a_wrong_declaration_is_told(text: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        parse(text, "here")


def test_administrators_add_functions() -> None:
    more = shipped().with_functions(["vfs_open", "commit_creds", "ptmx_open"])
    assert more.functions["ptmx_open"].number == 32
    assert more.functions["vfs_open"].number == 33
    assert more.functions["commit_creds"].number == 1


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"schema": 2}, "schema"),
        ({"build_id": "x"}, "build_id"),
        ({"functions": {"f": {"callers": ["a"], "taken": []}}}, r"functions\.f\.callers\.0"),
        ({"more": 1}, "more: Extra"),
    ],
)
def test_a_wrong_lock_file_is_told(tmp_path: Path, change: dict[str, object], problem: str) -> None:
    place = tmp_path / "lock.json"
    place.write_text(json.dumps({**GOOD, **change}))
    with pytest.raises(ConfigError, match=problem):
        lock_file.read(place)
    place.write_text("{")
    with pytest.raises(ConfigError, match="is not valid JSON"):
        lock_file.read(place)
    with pytest.raises(ConfigError, match="cannot be read"):
        lock_file.read(tmp_path / "nothing")


def test_differences_name_what_came_and_went() -> None:
    old = lock_file.LockFile.model_validate(GOOD)
    functions = {"f": {"callers": ["a+0x2"], "taken": ["t"]}, "g": {"callers": [], "taken": []}}
    new = lock_file.LockFile.model_validate({**GOOD, "functions": functions})
    assert lock_file.differences(old, new) == ["- f <- a+0x1", "+ f <- a+0x2", "+ f <- pointers to t", "+ g"]
    assert lock_file.differences(new, old)[-1] == "- g"
    assert lock_file.differences(old, old) == []


@pytest.mark.parametrize("place", LOCKS, ids=lambda each: each.stem[:8])
def test_a_shipped_lock_file_is_named_after_its_build(place: Path) -> None:
    found = lock_file.read(place)
    assert found.build_id == place.stem
    assert found.functions["commit_creds"].callers
    assert set(found.functions["commit_creds"].taken) <= shipped().indirect.keys()
    assert lock_file.shipped(found.build_id) == found


def test_there_is_none_of_an_unknown_build() -> None:
    assert lock_file.shipped("00") is None


@pytest.mark.slow
@pytest.mark.parametrize("name", kernels.PATTERNS)
def test_debians_newest_builds_have_their_lock_files(name: str) -> None:
    """Asks Debian's archive, which the ordinary tests do not; the kernels that lie here may be old."""
    try:
        release = kernels.newest(name, Cache())
    except LabError as error:
        pytest.skip(f"Debian's archive cannot be asked: {error}")
    filed = {lock_file.read(each).release for each in LOCKS}
    assert release in filed, f"Debian has {release} now: krie lab fetch {name}, then {RENEW.format(name)}"


@pytest.mark.parametrize("name", kernels.PATTERNS)
def test_the_labs_kernels_have_their_lock_files(name: str) -> None:
    """Fails where a kernel that was fetched here is newer than the lock files."""
    kernel = kernels.known(name, Cache())
    if kernel is None:
        pytest.skip(f"lab kernel {name}: krie lab fetch {name}")
    found = boot_image.kernel_in(kernel.image)
    assert found.release == kernel.release
    renew = RENEW.format(name)
    filed = lock_file.shipped(found.build_id)
    assert filed is not None, renew
    made = lock_file.lock_file_of(
        found.release, found.build_id, found.code, found.code.callers(shipped().functions, shipped().jumps())
    )
    assert lock_file.differences(filed.derived(), made) == [], renew


@pytest.mark.parametrize("content", [b"", b"MZ", b"\x7fELF\x02\x01" + bytes(100)])
def test_what_is_no_kernel_is_told(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(ConfigError, match="holds no kernel"):
        boot_image.kernel_in(tmp_path / "file")


def test_modules_are_not_believed(tmp_path: Path) -> None:
    """One that was loaded by an attacker could name its functions as the kernel's are."""
    lines = [
        "ffffffff81000000 T _stext",
        "ffffffff81000010 T f",
        "ffffffff81000020 T _etext",
        "ffffffffc0000000 t f\t[evil]",
    ]
    (tmp_path / "kallsyms").write_text("\n".join(lines) + "\n")
    ranges = layout(locate(BOUNDS, (), tmp_path / "kallsyms"))
    code = code_of(lambda _, size: bytes(size), ranges, tmp_path / "kallsyms")
    assert code.address("f") == 0xFFFFFFFF81000010
