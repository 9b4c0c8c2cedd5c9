"""What the kernel lists of its symbols, read again where modules come and go."""

import tracemalloc
from functools import partial
from pathlib import Path

from krie.child import forked
from krie.kernel.symbols import Symbols, addresses, functions, read_once

BEGIN = 0xFFFFFFFF81000040
"""Of commit_creds."""
LISTED = """\
0000000000000000 A fixed_percpu_data
ffffffff81000000 T _stext
ffffffff81000040 T commit_creds
ffffffff81000040 t __alias_of_it
ffffffff81000100 t twice
ffffffff81000200 t twice
ffffffff82000000 D init_cred
ffffffffc0000000 t helper\t[krie_test]
ffffffffc0000020 t bpf_prog_1_x\t[bpf]
ffffffffa0000000 t helper\t[lower]
ffffffffa0000010 d data\t[lower]
"""


def test_symbols_and_addresses(tmp_path: Path) -> None:
    place = tmp_path / "kallsyms"
    place.write_text(LISTED)
    symbols = Symbols(["init_cred", "_stext", "nothing"], place)
    names = ("init_cred", "_stext", "nothing")
    assert [symbols.address(each) for each in names] == [0xFFFFFFFF82000000, 0xFFFFFFFF81000000, 0]
    code = functions(["commit_creds", "twice", "nothing", "helper"], place)
    assert (code["commit_creds"].start, len(code["commit_creds"])) == (BEGIN, 0xC0)
    assert [len(code[each]) for each in ("twice", "nothing", "helper")] == [0, 0, 0]
    assert str(symbols.find(0xFFFFFFFF81000103)) == "twice+0x3"
    assert str(symbols.find(0xFFFFFFFFC0000021)) == "bpf_prog_1_x+0x1 [bpf]"
    assert symbols.find(0xFFFFFFFFC0000001) is not None
    assert symbols.find(0x1000) is None
    assert str(symbols.find(0xFFFFFFFF81000041)) == "commit_creds+0x1"
    assert symbols.find(0xFFFFFFFFD0000000) is None
    assert str(symbols.find(0xFFFFFFFFA0000011)) == "helper+0x11 [lower]"


def test_symbols_of_modules_are_read_again(tmp_path: Path) -> None:
    """And those alone: the kernel's own stay where they are."""
    place = tmp_path / "kallsyms"
    place.write_text(LISTED)
    symbols = Symbols((), place)
    known = len(symbols)
    own, others = LISTED[: LISTED.index("ffffffffc0")], LISTED[LISTED.index("ffffffffc0") :]
    place.write_text(
        own.replace("twice", "never") + "ffffffffb0000000 t odd\t[of\nit]\n" + others[: others.index("ffffffffa0")]
    )
    symbols.renew()
    assert len(symbols) == known
    assert str(symbols.find(0xFFFFFFFF81000103)) == "twice+0x3"
    assert str(symbols.find(0xFFFFFFFFB0000001)) == r"odd+0x1 [of\x0ait]"
    assert symbols.names(0xFFFFFFFFC0000000) == {"helper"}
    assert symbols.find(0xFFFFFFFFA0000001) is None
    place.write_text(own)
    symbols.renew()
    assert symbols.find(0xFFFFFFFFC0000000) is None


def test_addresses_by_name(tmp_path: Path) -> None:
    place = tmp_path / "kallsyms"
    place.write_text(LISTED)
    names = ("twice", "helper", "krie_test:helper", "lower:data", "init_cred", "nothing", "init", "ice")
    assert addresses(names, place) == {
        "twice": (0xFFFFFFFF81000100, 0xFFFFFFFF81000200),
        "krie_test:helper": (0xFFFFFFFFC0000000,),
        "lower:data": (0xFFFFFFFFA0000010,),
        "init_cred": (0xFFFFFFFF82000000,),
    }


def test_within_a_start_symbols_are_read_once(tmp_path: Path) -> None:
    place = tmp_path / "kallsyms"
    place.write_text(LISTED)
    later = LISTED.replace("ffffffff82000000", "ffffffff83000000")
    asked = partial(addresses, ("init_cred",), place)
    with read_once():
        before = asked()
        place.write_text(later)
        assert asked() == before
        assert Symbols(["init_cred"], place).address("init_cred") == 0xFFFFFFFF82000000
        assert functions(["commit_creds"], place)["commit_creds"].start == BEGIN
        child = forked(lambda link: link.send(asked()))  # it may live as long as the agent
        in_a_child = child.receive(60)
        child.end()
    assert in_a_child == asked() == {"init_cred": (0xFFFFFFFF83000000,)}


def test_symbols_take_a_small_part_of_what_the_kernel_lists(tmp_path: Path) -> None:
    place = tmp_path / "kallsyms"
    place.write_text("".join(f"{0xFFFFFFFF81000000 + 16 * n:016x} t some_function_{n}\n" for n in range(20_000)))
    tracemalloc.start()
    symbols = Symbols((), place)
    held, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(symbols) == 20_000
    assert held < 20_000 * 45
    assert most < 20_000 * 150


def test_hidden_addresses_are_no_addresses(tmp_path: Path) -> None:
    place = tmp_path / "kallsyms"
    place.write_text("".join(f"{0:016x} {line[17:]}\n" for line in LISTED.splitlines()))
    symbols = Symbols(["init_cred"], place)
    assert (len(symbols), symbols.address("init_cred")) == (0, 0)
    assert len(functions(["commit_creds"], place)["commit_creds"]) == 0
