"""Rings of io_uring by hand: Python code that processes of tests begin with, which have `ctypes`, `libc` and `os`."""

RING = """
import mmap, struct, time
LINKED, BY_A_WORKER, POLL, OPENAT = 4, 16, 6, 18

class Ring:
    def __init__(self):
        parameters = ctypes.create_string_buffer(120)
        self.number = libc.syscall(425, 8, parameters)
        if self.number < 0:
            print("none", os.strerror(ctypes.get_errno()), flush=True)
            os._exit(0)
        _, self.tail, _, _, _, _, self.array = struct.unpack_from("7I", parameters, 40)
        _, self.answered, _, _, _, self.answers_at = struct.unpack_from("6I", parameters, 80)
        self.queue = mmap.mmap(self.number, max(self.array + 32, self.answers_at + 256))
        self.entries = mmap.mmap(self.number, 512, offset=0x10000000)

    def submit(self, *requests, personality=0):
        for number, (operation, flags, file, address, length, how) in enumerate(requests):
            entry = struct.pack("<BBHiQQIIQ", operation, flags, 0, file, 0, address, length, how, number)
            entry += struct.pack("<HH", 0, personality)
            self.entries[64 * number : 64 * number + 64] = entry.ljust(64, bytes(1))
            struct.pack_into("I", self.queue, self.array + 4 * number, number)
        struct.pack_into("I", self.queue, self.tail, len(requests))
        assert libc.syscall(426, self.number, len(requests), 0, 0, 0, 0) == len(requests)

    def answers(self):
        count = struct.unpack_from("I", self.queue, self.answered)[0]
        return dict(struct.unpack_from("Qi", self.queue, self.answers_at + 16 * each) for each in range(count))
"""
