"""What cannot be attached on this machine, and why."""

from pathlib import Path

import pytest
from krie import AttachType, Program
from krie.errors import AttachError
from krie.kernel.attach import Places, attach, obstacle
from krie.tree import Tree


def places(tree: Tree | None) -> Places:
    return Places(Path("/nowhere"), tree, lambda _: 0)


def test_programs_of_cgroups_need_the_tree(tmp_path: Path) -> None:
    """A probe takes another alternative then."""
    assert obstacle(AttachType.CGROUP_SYSCTL, places(None)) == "this kernel has no cgroup v2"
    with pytest.raises(AttachError, match="this kernel has no cgroup v2"):
        attach(Program(AttachType.CGROUP_SYSCTL, "", "sample"), -1, places(None))
    tree = Tree.at(tmp_path)
    assert obstacle(AttachType.CGROUP_SYSCTL, places(tree)) == ""
    tree.close()
