"""Texts that no field holds and numbers that none reaches, and what is said about them."""

from .warned import BPF, PTRACE, rule

FLAGS = "smep_smap.register_check"
_LONG = "systemd-journald"
"""One byte longer than the name of a thread."""
_COMM = f'input.process.comm is never "{_LONG}"; it holds at most 15 bytes'

SIZES = {
    "a thread's name": (rule(f'\tinput.process.comm == "{_LONG}"'), f"p0.rego:5:2: rule R1: {_COMM}"),
    "a thread's name, unlike": (rule(f'\tinput.process.comm != "{_LONG}"'), f"p0.rego:5:2: rule R1: {_COMM}"),
    "a thread's name among others": (
        rule(f'\tinput.process.comm in {{"sh", "{_LONG}"}}'),
        f"p0.rego:5:2: rule R1: {_COMM}",
    ),
    "a thread's name in a pair": (
        rule(f'\t[input.process.comm, input.process.uid] == ["{_LONG}", 0]'),
        f"p0.rego:5:2: rule R1: {_COMM}",
    ),
    "a thread's name by a variable": (
        rule(f'\tname := input.process.comm\n\tname == "{_LONG}"'),
        f"p0.rego:6:2: rule R1: {_COMM}",
    ),
    "a thread's name by a function": (
        rule("\tknown(input.process.comm)", f'known(name) if name == "{_LONG}"\n'),
        f"p0.rego:7:16: rule R1: {_COMM}",
    ),
    "a thread's name by a rule": (
        rule("\tinput.process.comm == daemon", f'daemon := "{_LONG}"\n'),
        f"p0.rego:5:2: rule R1: {_COMM}",
    ),
    "an ancestor's name": (
        rule(f'\tsome a in input.process.ancestors\n\ta.comm == "{_LONG}"'),
        f'p0.rego:6:2: rule R1: input.process.ancestors[_].comm is never "{_LONG}"; it holds at most 15 bytes',
    ),
    "the target's name": (
        rule(f'\tinput.event.target.comm == "{_LONG}"', kind=PTRACE),
        f'p0.rego:5:2: rule R1: input.event.target.comm is never "{_LONG}"; it holds at most 15 bytes',
    ),
    "a program's name in the kernel": (
        rule('\tinput.event.name == "a_name_of_17_byte"', kind=BPF),
        'p0.rego:5:2: rule R1: input.event.name is never "a_name_of_17_byte"; it holds at most 16 bytes',
    ),
    "a name in bytes": (
        rule('\tinput.process.comm == "ääääääää"'),
        'p0.rego:5:2: rule R1: input.process.comm is never "ääääääää"; it holds at most 15 bytes',
    ),
    "a beginning": (
        rule(f'\tstartswith(input.process.comm, "{_LONG}")'),
        f'p0.rego:5:2: rule R1: input.process.comm never begins with "{_LONG}"; it holds at most 15 bytes',
    ),
    "an end": (
        rule(f'\tendswith(input.process.comm, "{_LONG}-it")'),
        f'p0.rego:5:2: rule R1: input.process.comm never ends with "{_LONG}-it"; it holds at most 15 bytes',
    ),
    "a text's length": (
        rule("\tcount(input.event.old) > 256"),
        "p0.rego:5:2: rule R1: compares count(input.event.old) with 256 by >, which is never true; it is at least 0 "
        "and at most 256",
    ),
    "a text's length, the other way round": (
        rule("\t300 <= count(input.event.old)"),
        "p0.rego:5:2: rule R1: compares count(input.event.old) with 300 by <=, which is never true; it is",
    ),
    "a text's length by a variable": (
        rule("\tsize := count(input.event.old)\n\tsize == 257"),
        "p0.rego:6:2: rule R1: compares count(input.event.old) with 257 by ==, which is never true; it is",
    ),
    "a count of flags": (
        rule("\tcount(input.event.failed) > 7", kind=FLAGS),
        "p0.rego:5:2: rule R1: compares count(input.event.failed) with 7 by >, which is never true; it is at least 0 "
        "and at most 7",
    ),
    "a count of ancestors": (
        rule("\tcount(input.process.ancestors) > 16"),
        "p0.rego:5:2: rule R1: compares count(input.process.ancestors) with 16 by >, which is never true; it is",
    ),
    "a count below 0": (
        rule("\tcount(input.event.names) < 0").replace("names", "name"),
        "p0.rego:5:2: rule R1: compares count(input.event.name) with 0 by <, which is never true; it is at least 0",
    ),
    "a user below 0": (
        rule("\tinput.process.uid == -1"),
        "p0.rego:5:2: rule R1: compares input.process.uid with -1 by ==, which is never true; it is at least 0",
    ),
    "not a user below 0": (
        rule("\tinput.process.uid != -1\n\tinput.event.new_int == 5"),
        "p0.rego:5:2: rule R1: compares input.process.uid with -1 by !=, which is always true; it is at least 0",
    ),
    "a number beyond its bits": (
        rule("\tinput.event.new_int >= 9223372036854775808"),
        "p0.rego:5:2: rule R1: compares input.event.new_int with 9223372036854775808 by >=, which is never true",
    ),
    "a short address": (
        rule('\tinput.event.ip == "0x0"', kind=FLAGS),
        'p0.rego:5:2: rule R1: input.event.ip is never "0x0"; it has the form ^0x[0-9a-f]{16}$',
    ),
    "an address in capitals": (
        rule('\tinput.event.ip in {"0xFFFFFFFF81000000", "0xffffffff81000000"}', kind=FLAGS),
        'p0.rego:5:2: rule R1: input.event.ip is never "0xFFFFFFFF81000000"; it has the form',
    ),
    "a program by its path": (
        rule('\tinput.process.program == "/usr/bin/apt"'),
        'p0.rego:5:2: rule R1: "/usr/bin/apt" is not a program that [executables] of krie.toml names; '
        "did you mean apt?",
    ),
    "a program with a point": (
        rule('\tinput.process.program in {"apt", "python3.11"}'),
        'p0.rego:5:2: rule R1: "python3.11" is not a program that [executables] of krie.toml names; give it',
    ),
}

IN_SIZE = {
    "a local set of the values of two fields": rule(
        '\tnames := {"sh", "/usr/bin/a-long-name"}\n\tinput.process.comm in names\n\tinput.process.exe in names'
    ),
    "a thread's longest name": rule('\tinput.process.comm == "systemd-journal"'),
    "a longest name of 15 bytes that are no UTF-8": rule('\tinput.process.comm == "%s"' % (r"\\xff" * 15)),
    "a longest beginning": rule('\tstartswith(input.process.comm, "systemd-journal")'),
    "an end that may be in a byte's text": rule('\tendswith(input.process.comm, "xffsystemd-journa")'),
    "all bytes of a field": rule('\tinput.event.name == "a_name_of_16_byt"', kind=BPF),
    "names for two fields": rule(
        "\tinput.process.comm in names\n\tinput.process.parent.exe in names", f'names := {{"sh", "/usr/bin/{_LONG}"}}\n'
    ),
    "names of data": rule("\tinput.process.comm in data.programs"),
    "a text's order": rule(f'\tinput.process.comm > "{_LONG}"'),
    "a text's length": rule("\tcount(input.event.old) > 255"),
    "a text's length as it is": rule("\tcount(input.event.old) >= 256"),
    "all flags": rule("\tcount(input.event.failed) == 7", kind=FLAGS),
    "all ancestors": rule("\tcount(input.process.ancestors) == 16"),
    "of what nobody knows": rule("\tcount(data.programs) > 1\n\tinput.process.uid == 5"),
    "a number of any size": rule("\tinput.event.new_int == -1"),
    "the last user": rule("\tinput.process.uid == 4294967295"),
    "a limit of the policy's": rule(
        "\tsmall", "least := 0\n\nsmall if input.process.uid < least\n\nsmall if input.process.gid == 5\n"
    ),
    "a text that may be empty": rule('\tobject.get(input.event, "name", "") == ""'),
    "a whole address": rule('\tinput.event.ip == "0x0000000000000000"', kind=FLAGS),
}
"""What looks like them and may be meant."""
