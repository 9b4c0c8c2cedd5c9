"""`krie compile` as a user without root runs it, up to where it would compile."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ..btf_file import BtfFile
from .command import configure, krie

COMPILER_GONE = "import sys; sys.modules['bcc'] = None; from krie.cli.main import main; main()"


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ([], "give exactly one of --btf FILE, --vmlinux FILE or --kernel NAME"),
        (
            ["--btf", "btf", "--kernel", "debian-6.12"],
            "give exactly one of --btf FILE, --vmlinux FILE or --kernel NAME",
        ),
        (["--btf", "none"], "krie: none: cannot be read: No such file or directory"),
        (["--vmlinux", "krie.toml"], "krie: krie.toml: holds no types of a kernel: it is neither BTF nor a 64-bit ELF"),
        (["--kernel", "windows"], "krie: no kernel is named 'windows'; known are debian-5.10"),
        (["--btf", "btf", "--config", "nothing.toml"], "krie: nothing.toml: cannot be read: No such file"),
    ],
)
def test_what_cannot_be_done_is_one_clear_line(folder: Path, arguments: list[str], problem: str) -> None:
    configure(folder, "[plugins.smep_smap]")
    BtfFile().write(folder / "btf")
    result = krie(folder, "compile", *arguments, "--output", "out")
    assert result.returncode != 0
    assert problem in result.stderr.splitlines()[-1]
    assert not (folder / "out").exists()


def test_without_a_compiler_it_says_what_to_install(folder: Path) -> None:
    configure(folder, "[plugins.smep_smap]")
    made = BtfFile()
    made.struct("task_struct", 8, [("tgid", made.integer("int"), 4)])
    made.write(folder / "btf")
    command = [sys.executable, "-I", "-c", COMPILER_GONE, "compile", "--btf", "btf", "--output", "out"]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=os.environ)
    assert result.returncode == 3
    assert result.stderr.count("\n") == 1
    assert "krie: loading the compiler; install the package python3-bpfcc" in result.stderr
