"""Code that others could change is not run: KRIe's own, a plugin's, what it imports, what Python is told to import."""

import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import krie
import pytest
from krie import trusted_code
from krie.trusted_code import require_own_code_trusted

STRANGER = 12345
SITE = """\
import sys
sys.path.insert(0, {folder!r})
from pathlib import Path
from krie.config import Config
from krie.errors import KrieError
from krie.kernel.features import Features
from krie.plugin.manager import Plugins
try:
    loaded = Plugins.load(Config(plugins={{{plugin!r}: {{}}}}), "krie.toml", Features(), print)
    print("loaded", *(each.name for each in loaded.loaded))
except KrieError as error:
    print("refused", error)
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder on the path with a plugin that imports a module, a package, and one that it tries to."""
    tmp_path.chmod(0o755)
    folder = tmp_path / "site"
    (folder / "krie_example").mkdir(parents=True, mode=0o755)
    (folder / "krie_example-1.dist-info").mkdir(mode=0o755)
    (folder / "helpers" / "deep").mkdir(parents=True, mode=0o755)
    for name, text in {
        "krie_example-1.dist-info/METADATA": "Metadata-Version: 2.1\nName: krie-example\nVersion: 1\n",
        "krie_example-1.dist-info/entry_points.txt": "[krie]\nexample = krie_example.plugin\n",
        "krie_example/__init__.py": "",
        "krie_example/rules.rego": "package krie.example\n",
        "krie_example/plugin.py": "import krie, single, helpers.deep.inner\n"
        "@krie.hookimpl\ndef krie_sensor():\n    return krie.Sensor(name='example', version='1')\n",
        "single.py": "print('single ran')\n",
        "helpers/__init__.py": "",
        "helpers/deep/__init__.py": "",
        "helpers/deep/inner.py": "print('inner ran')\n",
    }.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o644)
    return folder


def load(folder: Path, plugin: str = "example") -> str:
    code = SITE.format(folder=str(folder), plugin=plugin)
    return subprocess.run([sys.executable, "-IB", "-c", code], capture_output=True, text=True, check=True).stdout


def test_each_file_is_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    looked, stat = Counter[str](), os.stat

    def counted(path: Path, *, follow_symlinks: bool = True) -> os.stat_result:
        looked[str(path)] += 1
        return stat(path, follow_symlinks=follow_symlinks)

    with monkeypatch.context() as patched:
        patched.setattr(os, "stat", counted)
        require_own_code_trusted()
    assert trusted_code.__file__ in looked
    twice = (Path(path) for path, times in looked.items() if times > 1)
    # An editable installation's finder asks for the packages themselves, too.
    assert [each for each in twice if each.is_file() and not each.is_symlink() and each.name != "__init__.py"] == []


def test_what_only_root_can_change_is_loaded(site: Path) -> None:
    assert load(site).split() == ["single", "ran", "inner", "ran", "loaded", "example"]


@pytest.mark.parametrize(
    ("loose", "how"),
    [
        ("single.py", "owner"),
        ("single.py", "mode"),
        ("helpers/deep/inner.py", "owner"),
        ("helpers/deep", "mode"),
        ("helpers", "owner"),
        ("krie_example/plugin.py", "mode"),
        ("krie_example", "owner"),
    ],
)
def test_a_module_that_others_could_change_is_not_run(site: Path, loose: str, how: str) -> None:
    if how == "owner":
        os.chown(site / loose, STRANGER, -1)
    else:
        (site / loose).chmod((site / loose).stat().st_mode | 0o020)
    answer = load(site)
    assert f"refused {site / loose}: " in answer
    assert ("inner" if "helpers" in loose else "single") + " ran" not in answer


@pytest.mark.parametrize("loose", ["", "loose.pth", "krie_example/rules.rego"])
def test_what_python_or_the_agent_reads_besides_modules(site: Path, loose: str) -> None:
    (site / loose).exists() or (site / loose).write_text("")
    os.chown(site / loose, STRANGER, -1)
    assert load(site).strip() == f"refused {site / loose}: belongs to user {STRANGER}, who could change it: " + (
        f"chown root {site / loose}"
    )


def test_a_compiled_module_that_others_could_change_is_not_run(site: Path) -> None:
    cache = site / "__pycache__"
    cache.mkdir(mode=0o755)
    compiled = cache / f"single.{sys.implementation.cache_tag}.pyc"
    compiled.write_bytes(b"whatever")
    compiled.chmod(0o666)
    assert f"refused {compiled}: can be changed by other users" in load(site)
    compiled.unlink()
    cache.chmod(0o777)  # nothing is there yet, but somebody may put it there
    assert f"refused {cache}: can be changed by other users" in load(site)


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """KRIe itself, as a wheel lays it out."""
    root, folder = Path(krie.__file__).resolve().parent.parent, tmp_path_factory.mktemp("copy") / "site"
    ignored = shutil.ignore_patterns("__pycache__", "locks")
    shutil.copytree(root / "core", folder / "krie", ignore=ignored)
    for name in ("plugins", "bpf", "policies"):
        shutil.copytree(root / name, folder / "krie" / name, ignore=ignored)
    return folder


@pytest.mark.parametrize(
    "loose",
    [
        "plugins/runtime_integrity/plugin.py",
        "plugins/runtime_integrity/ptrace.bpf.c",
        "plugins/smep_smap",
        "policies/runtime_integrity",
        "bpf/krie.h",
        "trust.py",
    ],
)
def test_kries_own_files_are_no_exception(copy: Path, loose: str) -> None:
    os.chown(copy / "krie" / loose, STRANGER, -1)
    try:
        assert f"refused {copy / 'krie' / loose}: belongs to user {STRANGER}" in load(copy, "runtime_integrity")
    finally:
        os.chown(copy / "krie" / loose, os.geteuid(), -1)


HOSTILE = ("click", "json", "argparse", "logging", "pluggy", "pydantic", "bcc", "pathlib", "typing", "select")


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    folder = tmp_path / "hostile"
    folder.mkdir()
    for name in (*HOSTILE, "sitecustomize"):
        (folder / f"{name}.py").write_text(f"print('HOSTILE {name}')\n")
    return folder


def said(folder: Path, *command: str, **environment: str) -> str:
    answer = subprocess.run(
        command, cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    return answer.stdout + answer.stderr


def test_the_command_believes_no_environment(hostile: Path) -> None:
    command = str(Path(sys.executable).parent / "krie")
    answer = said(hostile, command, "plugins", PYTHONPATH=str(hostile))
    assert "HOSTILE" not in answer
    assert "runtime_integrity" in answer
    answer = said(hostile, command, "run", "--config", "none.toml", PYTHONPATH=str(hostile))
    assert answer == "krie: none.toml: cannot be read: No such file or directory\n"


@pytest.mark.parametrize(
    ("start", "expected"),
    [
        (("-m", "krie.agent", "--help"), "usage: krie-agent"),
        (("-m", "krie.start", "plugins"), "runtime_integrity"),
        (("-c", "from krie.start import main; main()", "plugins"), "runtime_integrity"),
    ],
)
def test_no_start_believes_the_working_folder(hostile: Path, start: tuple[str, ...], expected: str) -> None:
    """As a script that pip wrote: without -I."""
    answer = said(hostile, sys.executable, *start)
    assert "HOSTILE" not in answer
    assert expected in answer
