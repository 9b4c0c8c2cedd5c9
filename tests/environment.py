"""A virtual environment of its own, as somebody has it who writes a plugin."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCES = "bpf core plugins policies LICENSE README.md pyproject.toml".split()
PIP = "python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation"


class Environment:
    """A virtual environment; what is not installed into it comes from the one that tests."""

    def __init__(self, folder: Path) -> None:
        """`folder`: root's, not in /tmp, which guests do not see."""
        self.work = folder / "work"
        self.work.mkdir(parents=True)
        self.venv = folder / "venv"
        python = [sys.executable, "-m", "venv", "--without-pip", "--system-site-packages", str(self.venv)]
        subprocess.run(python, check=True)
        site = next(self.venv.glob("lib/*/site-packages"))
        pip = self.venv / "bin/pip"  # the other one would install into the environment that tests
        pip.write_text(f'#!/bin/sh\nexec {self.venv}/bin/python -m pip "$@"\n')
        pip.chmod(0o755)
        (site / "others.pth").write_text(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n")

    def install_krie(self) -> None:
        """By a wheel."""
        source = self.work / "krie"  # a copy: setuptools leaves things beside what it builds
        source.mkdir()
        for name in SOURCES:
            copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
            copy(ROOT / name, source / name)
        self.run(f"{PIP} {source}")

    def run(self, script: str) -> str:
        """Run a shell script as an author would; returns the output. Raises `AssertionError` with it."""
        tools = (self.venv / "bin", ROOT / ".cache/tools", Path(sys.executable).parent)
        environment = {**os.environ, "PATH": ":".join([*map(str, tools), os.environ["PATH"]])}
        environment.pop("VIRTUAL_ENV", None)
        done = subprocess.run(
            ["bash", "-euc", script],
            cwd=self.work,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert done.returncode == 0, f"{script}\nended with {done.returncode}:\n{done.stdout}"
        return done.stdout
