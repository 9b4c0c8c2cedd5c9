"""Where the test module's commands find what they change."""

from pathlib import Path

import pytest
from krie.testing import module
from krie.testing.module import address_of

TEXT = """\
ffffffff81000000 T _text
ffffffff81000010 t same
ffffffff81000020 t same
ffffffff81000030 T commit_creds
ffffffff81000040 T commit_creds_more
ffffffffc0000000 t its_own\t[krie_test]
"""


@pytest.fixture(autouse=True)
def kallsyms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = tmp_path / "kallsyms"
    place.write_text(TEXT)
    monkeypatch.setattr(module, "KALLSYMS", place)
    monkeypatch.setattr(module, "_own_symbols", {})
    return place


def test_one_of_a_name_is_found() -> None:
    found = [address_of(each) for each in ("_text", "commit_creds", "commit_creds_more", "its_own")]
    assert found == [0xFFFFFFFF81000000, 0xFFFFFFFF81000030, 0xFFFFFFFF81000040, 0xFFFFFFFFC0000000]


@pytest.mark.parametrize("symbol", ["same", "none", "commit_cred", "reds"])
def test_none_and_several_are_an_error(symbol: str) -> None:
    with pytest.raises(KeyError, match=symbol):
        address_of(symbol)


def test_what_comes_with_modules_is_looked_for_again(kallsyms: Path) -> None:
    before = [address_of(each) for each in ("commit_creds", "its_own")]
    kallsyms.write_text(TEXT.replace("ffffffff81000030", "ffffffff99000000").replace("ffffffffc0000000", "f" * 16))
    assert [address_of(each) for each in ("commit_creds", "its_own")] == [before[0], 0xFFFFFFFFFFFFFFFF]


def test_what_was_hidden_may_be_shown(kallsyms: Path) -> None:
    kallsyms.write_text("0000000000000000 T commit_creds\n")
    assert address_of("commit_creds") == 0
    kallsyms.write_text(TEXT)
    assert address_of("commit_creds") == 0xFFFFFFFF81000030
