"""Operation events of runtime_integrity: each trigger gives exactly its events, its twin gives none."""

PREFIX = "runtime_integrity."
"""What the names of all kinds begin with."""
BPF = """
import resource, struct
try:
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (-1, -1))
except ValueError:
    pass
licence = ctypes.create_string_buffer(b"GPL")

def bpf(command, attributes):
    return libc.syscall(321, command, ctypes.create_string_buffer(attributes.ljust(120, b"\\0"), 120), 120)

def load(kind, code, flags=0):
    instructions = ctypes.create_string_buffer(code)
    head = struct.pack("=IIQQ", kind, len(code) // 8, ctypes.addressof(instructions), ctypes.addressof(licence))
    return bpf(5, head + struct.pack("=IIQII16s", 0, 0, 0, 0, flags, b"victim"))

RETURN = struct.pack("<BBhi", 0xB7, 0, 0, 0) + struct.pack("<BBhi", 0x95, 0, 0, 0)
"""
"""Code of victims that call bpf(2)."""
