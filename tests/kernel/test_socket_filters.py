"""What is told of filters of sockets."""

from krie.testing.fixtures import JournalOfVictims
from krie.testing.victims import Victims

from .lines import rules_of
from .operations import PREFIX

FILTER = """
import socket, struct
made = socket.socket(getattr(socket, sys.argv[1]), socket.SOCK_DGRAM)
code = ctypes.create_string_buffer(struct.pack("=HBBI", 6, 0, 0, 0xFFFF))  # accept everything
made.setsockopt(socket.SOL_SOCKET, 26, struct.pack("@HP", 1, ctypes.addressof(code)))
made.setsockopt(socket.SOL_SOCKET, 27, 0)
"""


def test_filters_of_sockets(journal: JournalOfVictims, victims: Victims) -> None:
    victims.run(FILTER + "made.setsockopt(socket.SOL_SOCKET, 44, 1)", "AF_UNIX")
    lines = journal.exactly(f"{PREFIX}socket_filter", 3, family="unix", type="dgram")
    assert [line["event"]["operation"] for line in lines] == ["attach_filter", "detach_filter", "lock_filter"]
    assert [line["event"]["insn_count"] for line in lines] == [1, 0, 0]
    assert set().union(*map(rules_of, lines)) == set()


def test_a_filter_of_packets(journal: JournalOfVictims, victims: Victims) -> None:
    victims.run(FILTER, "AF_PACKET")
    attached, detached = journal.exactly(f"{PREFIX}socket_filter", 2, family="packet")
    assert (rules_of(attached), rules_of(detached)) == ({"SOCKET001"}, set())


def test_the_same_numbers_at_another_level(journal: JournalOfVictims, victims: Victims) -> None:
    victims.run("import socket; socket.socket(socket.AF_INET6).setsockopt(41, 26, 1)")  # IPV6_V6ONLY
    victims.run("import socket; socket.socket().setsockopt(socket.SOL_SOCKET, 2, 1)")
    journal.none(f"{PREFIX}socket_filter")
