"""`krie.system_call`: what it passes on, and what it returns."""

import ctypes
import errno
import os

from krie import system_call
from krie.libc import libc

READ, WRITE, LSEEK, ACCESS, GETPID = 0, 1, 8, 21, 39  # x86-64


def test_what_the_kernel_answers_is_returned() -> None:
    assert system_call(GETPID) == os.getpid()
    assert system_call(ACCESS, b"/", os.R_OK) == 0


def test_a_refusal_is_the_errors_number() -> None:
    assert system_call(READ, -1, None, 0) == -errno.EBADF
    assert system_call(ACCESS, b"/nonexistent", os.R_OK) == -errno.ENOENT


def test_arguments_and_answers_have_64_bits() -> None:
    file = os.memfd_create("krie-long", os.MFD_CLOEXEC)
    try:
        assert system_call(LSEEK, file, 5 << 32, os.SEEK_SET) == 5 << 32
        assert system_call(LSEEK, file, -(1 << 32), os.SEEK_CUR) == 4 << 32
    finally:
        os.close(file)


def test_memory_is_given_by_what_ctypes_has_it_in_and_none_is_no_address() -> None:
    file = os.memfd_create("krie-memory", os.MFD_CLOEXEC)
    try:
        assert system_call(WRITE, file, b"abc", 3) == 3
        assert system_call(LSEEK, file, 0, os.SEEK_SET) == 0
        buffer, number = ctypes.create_string_buffer(2), ctypes.c_uint8()
        assert system_call(READ, file, buffer, len(buffer)) == 2
        assert system_call(READ, file, ctypes.byref(number), 1) == 1
        assert (buffer.raw, number.value) == (b"ab", ord("c"))
        assert system_call(WRITE, file, None, 1) == -errno.EFAULT
    finally:
        os.close(file)


def test_it_changes_nothing_for_those_who_use_the_library() -> None:
    assert libc.syscall.restype is ctypes.c_int
