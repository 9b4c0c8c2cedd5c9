"""Names that imports give: twice in a file, in another file or package, and those of rules and variables."""

import pytest
from krie.errors import PolicyError

from .checked import compile_

ONE, OTHER = "input.process", "input.process.parent"


def importing(target: str, id_: str) -> str:
    head = f'{{"id": "{id_}", "action": "kill"}}'
    return f"package krie.site\nimport {target} as p\n\nrules contains {head} if p.tgid == 1\n"


@pytest.mark.parametrize("order", [1, -1], ids=["forward", "backward"])
def test_one_name_for_two_imports_is_refused_with_both_places(order: int) -> None:
    texts = [importing(ONE, "A"), importing(OTHER, "B")][::order]
    with pytest.raises(
        PolicyError, match=r"^p1.rego:2: p is input\.process.* here and input\.process.* at p0.rego:2: "
    ):
        compile_(*texts)


def test_one_name_for_one_import_in_two_files_and_for_two_in_two_packages() -> None:
    compile_(importing(ONE, "A"), importing(ONE, "B"))
    compile_(importing(ONE, "A"), importing(OTHER, "B").replace("krie.site", "krie.other"))


def test_a_name_that_the_last_part_of_an_import_gives() -> None:
    implicit = importing(OTHER, "A").replace(" as p", "").replace("p.tgid", "parent.tgid")
    with pytest.raises(PolicyError, match=r"^p1.rego:2: parent is .* at p0.rego:2"):
        compile_(
            implicit, importing("data.limits", "B").replace(" as p", " as parent").replace("p.tgid == 1", "1 in parent")
        )


@pytest.mark.parametrize("order", [1, -1], ids=["forward", "backward"])
def test_an_import_and_a_rule_of_one_name_are_refused_with_both_places(order: int) -> None:
    texts = [importing(ONE, "A"), "package krie.site\np := 7\n"][::order]
    places = {1: ("p1.rego:2", "p0.rego:2"), -1: ("p0.rego:2", "p1.rego:2")}[order]
    with pytest.raises(PolicyError, match=rf"^{places[0]}: p is a rule here and an import at {places[1]}: rename one"):
        compile_(*texts)


def test_an_import_is_its_file_s_only() -> None:
    other = 'package krie.site\nrules contains {"id": "B", "action": "log"} if {\n\tp.uid == 1\n}\n'
    with pytest.raises(PolicyError, match=r"^p1.rego:3:2: variable p is unsafe"):
        compile_(importing(ONE, "A"), other)


def test_variables_and_arguments_may_have_the_name_of_another_file_s_import() -> None:
    text = "package krie.site\nf(p) := p\nu := x if {\n\tp := 7\n\tx := f(p)\n}\n"
    for texts in ((importing(ONE, "A"), text), (text, importing(ONE, "A"))):
        compile_(*texts)
