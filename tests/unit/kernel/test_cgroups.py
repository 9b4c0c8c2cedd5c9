"""Paths of cgroups by their id, in a tree that is a folder."""

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from krie.kernel.cgroups import Cgroups
from krie.procfs import procfs
from krie.tree import Tree


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "cgroup/system.slice/a\\b").mkdir(parents=True)
    return tmp_path / "cgroup"


@pytest.fixture
def cgroups(tree: Path) -> Iterator[tuple[Cgroups, list[int]]]:
    places = {1: ".", 7: "system.slice", 8: "system.slice/a\\b"}
    asked: list[int] = []

    def open_by_id(root: int, identity: int) -> int:
        asked.append(identity)
        return os.open(places[identity], os.O_PATH, dir_fd=root) if identity in places else -1

    procfs()  # stays open
    before = len(os.listdir("/proc/self/fd"))
    with closing(Tree.at(tree)) as opened:
        made = Cgroups(opened, open_by_id)
    yield made, asked
    made.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_paths_begin_at_the_root_of_the_tree(cgroups: tuple[Cgroups, list[int]]) -> None:
    made, _ = cgroups
    assert [made.path(each) for each in (1, 7, 8)] == ["/", "/system.slice", "/system.slice/a\\\\b"]


def test_a_cgroup_that_is_gone_is_not_known(cgroups: tuple[Cgroups, list[int]]) -> None:
    assert cgroups[0].path(99) == "?"


def test_answers_are_remembered(cgroups: tuple[Cgroups, list[int]], tree: Path) -> None:
    made, asked = cgroups
    assert made.path(7) == made.path(7) == "/system.slice"
    assert asked == [7]


def test_what_could_not_be_opened_is_tried_again(tree: Path) -> None:
    """For want of descriptors, say."""
    answers = iter([-1, os.open(tree / "system.slice", os.O_PATH)])
    made = Cgroups(Tree.at(tree), lambda root, identity: next(answers))
    assert [made.path(7) for _ in range(3)] == ["?", "/system.slice", "/system.slice"]
    made.close()


def test_so_many_are_remembered_and_no_more(tree: Path) -> None:
    made = Cgroups(Tree.at(tree), lambda root, identity: os.open(tree / "system.slice", os.O_PATH))
    for identity in range(5000):
        made.path(identity)
    assert len(made._known) == 4096
    made.close()


def test_without_a_tree_nothing_is_known() -> None:
    made = Cgroups(None, lambda root, identity: pytest.fail("there is nothing to open"))
    assert made.path(1) == "?"
    made.close()
