"""Ways to load a BPF program that do not begin as others do: by another BPF program, with a token, with a signature.

None is a way round: all pass the hook at which the probe reads the instructions, where newer kernels have a copy of
them that nobody can change any more.
"""

import errno
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest
from krie.testing.agent import Line
from krie.testing.fixtures import JournalOfVictims
from krie.testing.victims import Victims

from .lines import rules_of
from .operations import BPF, PREFIX

pytestmark = pytest.mark.needs("lsm")
SIGNALS = """
def instruction(code, registers, offset, immediate):
    return struct.pack("<BBhi", code, registers, offset, immediate)

signals = instruction(0xB7, 1, 0, 0) + instruction(0x85, 0, 0, 109) + RETURN

def load_with(flags, offset, more):
    instructions = ctypes.create_string_buffer(signals, len(signals))
    head = struct.pack("=IIQQIIQII16s", 17, len(signals) // 8, ctypes.addressof(instructions),
                       ctypes.addressof(licence), 0, 0, 0, 0, flags, b"victim")
    attributes = (head.ljust(offset, b"\\0") + more).ljust(168, b"\\0")
    return libc.syscall(321, 5, ctypes.create_string_buffer(attributes, 168), 168)
"""


def loaded(journal: JournalOfVictims) -> list[Line]:
    """The loads of a program that can send signals, or may."""
    loads = [line for line in journal.lines(f"{PREFIX}bpf") if line["event"]["command"] == "prog_load"]
    return [line for line in loads if line["event"]["helpers"] or not line["event"]["helpers_known"]]


def test_a_bpf_program_loads_one(journal: JournalOfVictims, victims: Victims, lacks: Callable[[str], NoReturn]) -> None:
    """Its instructions were never in user memory: they are on the first one's stack."""
    shown = victims.run(
        BPF
        + SIGNALS
        + """
ATTRIBUTES, INSTRUCTIONS, LICENCE = -72, -104, -112

def store(offset, data):
    words = struct.iter_unpack("<i", data.ljust(-len(data) // 4 * -4, b"\\0"))
    return b"".join(instruction(0x62, 10, offset + 4 * each, word) for each, (word,) in enumerate(words))

def store_pointer(offset, to):
    return instruction(0xBF, 0xA1, 0, 0) + instruction(0x07, 1, 0, to) + instruction(0x7B, 0x1A, offset, 0)

code = store(LICENCE, b"GPL\\0\\0\\0\\0\\0") + store(INSTRUCTIONS, signals)
code += store(ATTRIBUTES, struct.pack("=II", 17, len(signals) // 8).ljust(72, b"\\0"))
code += store_pointer(ATTRIBUTES + 8, INSTRUCTIONS) + store_pointer(ATTRIBUTES + 16, LICENCE)
code += instruction(0xB7, 1, 0, 5) + instruction(0xBF, 0xA2, 0, 0) + instruction(0x07, 2, 0, ATTRIBUTES)
code += instruction(0xB7, 3, 0, 72) + instruction(0x85, 0, 0, 166) + instruction(0x95, 0, 0, 0)
program = load(31, code, 1 << 4)
test = ctypes.create_string_buffer(struct.pack("=I", program).ljust(80, b"\\0"), 80)
if program >= 0:
    assert libc.syscall(321, 10, test, 80) == 0, ctypes.get_errno()
print(program, struct.unpack_from("=i", test, 4)[0])
"""
    )
    program, made = map(int, shown.stdout.split())
    if program < 0:
        lacks("syscall_program: a BPF program of type syscall is not accepted")
    assert made > 0  # its descriptor
    (line,) = loaded(journal)
    event = line["event"]
    assert (event["from_kernel"], event["prog_type"], event["insn_count"]) == (True, "raw_tracepoint", 4)
    assert event["helpers_known"] is True
    assert "BPF002" in rules_of(line)


def test_who_has_a_token_loads_one(
    journal: JournalOfVictims, victims: Victims, lacks: Callable[[str], NoReturn]
) -> None:
    """Root of a user namespace, without any right outside, to whom a container's manager delegates BPF."""
    shown = victims.run(
        BPF
        + SIGNALS
        + """
import socket
FSOPEN, FSCONFIG, FSMOUNT, TOKEN_CREATE, TOKEN = 430, 431, 432, 36, 1 << 16
mine, theirs = socket.socketpair()
victim = os.getpid()
if not os.fork():
    status = 1
    try:
        theirs.recv(1)
        for name in ("uid_map", "gid_map"):
            with open(f"/proc/{victim}/{name}", "w") as file:
                file.write("0 0 1")
        _, (context,), _, _ = socket.recv_fds(theirs, 1, 1)
        for each in (b"cmds", b"maps", b"progs", b"attachs"):
            status = libc.syscall(FSCONFIG, context, 1, b"delegate_" + each, b"any", 0) or status
        libc.syscall(FSCONFIG, context, 6, None, None, 0)
    finally:
        theirs.send(b"x")
        os._exit(0)
assert libc.unshare(0x10000000 | 0x20000) == 0, ctypes.get_errno()
mine.send(b"x")
while os.getuid():
    pass
context = libc.syscall(FSOPEN, b"bpf", 1)
assert context >= 0, ctypes.get_errno()
socket.send_fds(mine, [b"x"], [context])
mine.recv(1)
mount = libc.syscall(FSMOUNT, context, 1, 0)
assert mount >= 0, ctypes.get_errno()
token = bpf(TOKEN_CREATE, struct.pack("=II", 0, os.open(".", os.O_RDONLY, dir_fd=mount)))
error = ctypes.get_errno()
without = load_with(0, 144, b"")
print(token, error, without, load_with(TOKEN, 144, struct.pack("=I", token)) if token >= 0 else -1)
"""
    )
    token, error, without, program = map(int, shown.stdout.split())
    if token < 0 and error == errno.EINVAL:
        lacks("bpf_token: this kernel delegates no BPF to user namespaces")
    assert (token >= 0, without < 0) == (True, True), error
    assert program >= 0
    line = loaded(journal)[-1]
    assert (line["event"]["helpers"], line["event"]["helpers_known"]) == (["send_signal"], True)
    assert "BPF002" in rules_of(line)
    created = [line["event"]["command"] for line in journal.lines(f"{PREFIX}bpf")]
    assert "token_create" in created


def key_and_signature(folder: Path, instructions: bytes) -> tuple[Path, Path]:
    """A certificate that the kernel takes as a key, and what was signed by it."""
    key, certificate, der = folder / "key.pem", folder / "certificate.pem", folder / "certificate.der"
    signed, signature = folder / "instructions", folder / "signature"
    signed.write_bytes(instructions)
    for command in (
        f"req -x509 -newkey rsa:2048 -nodes -sha256 -keyout {key} -out {certificate} -subj /CN=krie -days 2",
        f"x509 -in {certificate} -outform DER -out {der}",
        f"cms -sign -in {signed} -signer {certificate} -inkey {key} -binary -noattr -nosmimecap -md sha256 "
        f"-outform DER -out {signature}",
    ):
        subprocess.run(["openssl", *command.split()], check=True, capture_output=True)
    return der, signature


def test_a_signed_program_is_read_as_any_other(
    journal: JournalOfVictims, victims: Victims, lacks: Callable[[str], NoReturn], tmp_path: Path
) -> None:
    """Anybody can sign by a key in a keyring of his own: a signature says nothing to a rule."""
    code = "b70100000000000085000000" + "6d000000" + "b7000000000000009500000000000000"
    der, signature = key_and_signature(tmp_path, bytes.fromhex(code))
    shown = victims.run(
        BPF
        + SIGNALS
        + """
assert signals.hex() == sys.argv[3]
key, signature = (open(each, "rb").read() for each in sys.argv[1:3])
SESSION = ctypes.c_long(-3)
assert libc.syscall(250, 1, None) > 0, ctypes.get_errno()  # KEYCTL_JOIN_SESSION_KEYRING
assert libc.syscall(248, b"asymmetric", b"krie", key, ctypes.c_long(len(key)), SESSION) > 0, ctypes.get_errno()
keyring = libc.syscall(250, 0, SESSION, 0)
place = ctypes.create_string_buffer(signature, len(signature))
program = load_with(0, 152, struct.pack("=QIi", ctypes.addressof(place), len(signature), keyring))
print(program, ctypes.get_errno())
""",
        str(der),
        str(signature),
        code,
    )
    program, error = map(int, shown.stdout.split())
    if program < 0:
        lacks(f"signed_programs: a signed program is not accepted (errno {error})")
    (line,) = loaded(journal)
    assert (line["event"]["helpers"], line["event"]["helpers_known"]) == (["send_signal"], True)
    assert "BPF002" in rules_of(line)
