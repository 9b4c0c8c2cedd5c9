"""An agent that all tests of a module share, and victims in a cgroup of their own."""

import itertools
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest
from krie.kernel.mounts import mounted
from krie.testing.agent import RunningAgent

_NUMBERS = itertools.count()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.kernel)


@pytest.fixture(scope="module")
def agent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningAgent]:
    folder = tmp_path_factory.mktemp("agent")
    folder.chmod(0o700)
    with RunningAgent(folder, plugins={"runtime_integrity": {"required": True}}) as running:
        yield running


@pytest.fixture
def lacks() -> Callable[[str], NoReturn]:
    """Ends a test for want of a feature: skipped, or failed where KRIE_REQUIRE_KERNEL=1 says that all are there."""

    def end(feature: str) -> NoReturn:
        if os.environ.get("KRIE_REQUIRE_KERNEL") == "1":
            pytest.fail(f"required, but missing: {feature}")
        pytest.skip(f"this kernel lacks {feature}")

    return end


class Victims:
    """Runs programs in a cgroup of the test's own, so that their events can be told from the machine's."""

    def __init__(self, cgroup: Path, root: Path) -> None:
        self._cgroup = cgroup
        self.path = f"/{cgroup.relative_to(root)}"

    def run(self, code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run Python code in the cgroup; `libc` is defined."""
        prelude = "import ctypes, os, sys; libc = ctypes.CDLL(None, use_errno=True)\n"
        return self.execute([sys.executable, "-I", "-c", prelude + code, *arguments])

    def execute(self, command: list[str]) -> subprocess.CompletedProcess[str]:
        """Run a program in the cgroup. A shell enters it first and then becomes the program."""
        enter = f'echo $$ > {self._cgroup}/cgroup.procs && exec "$@"'
        return subprocess.run(["/bin/sh", "-c", enter, "sh", *command], check=True, capture_output=True, text=True)

    def mine(self, line: dict[str, dict[str, dict[str, str]]]) -> bool:
        """Whether a journal line is about something that happened in the cgroup."""
        return line["process"]["cgroup"]["path"] == self.path


@pytest.fixture
def victims() -> Iterator[Victims]:
    root = next(each.point for each in mounted("cgroup2") if each.root == "/")
    cgroup = root / f"krie-test-{os.getpid()}-{next(_NUMBERS)}"
    cgroup.mkdir()
    yield Victims(cgroup, root)
    cgroup.rmdir()
