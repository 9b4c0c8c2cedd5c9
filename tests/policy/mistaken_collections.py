"""Values that an enumeration does not have, wherever a rule compares it with a collection or a part of one."""

from .warned import BPF, rule

FLAGS = "smep_smap.register_check"
_LOWER = '"lowr" is not a value of input.event.change; did you mean lower?'
_FLAG = '"stack_usr" is not a value of input.event.failed[_]; did you mean stack_user?'

COLLECTIONS = {
    "an array's element": (
        rule('\t["lowr", "higher"][_] == input.event.change'),
        f"p0.rego:5:2: rule R1: {_LOWER}",
    ),
    "an array's element by a number": (
        rule('\tpair := ["lowr", "x"]\n\tpair[0] == input.event.change'),
        f"p0.rego:6:2: rule R1: {_LOWER}",
    ),
    "one place of two": (
        rule('\t[input.process.comm, input.event.change] == ["x", "lowr"]'),
        f"p0.rego:5:2: rule R1: {_LOWER}",
    ),
    "one place of two, unlike": (
        rule('\t[input.process.comm, input.event.change] != ["x", "lowr"]'),
        f"p0.rego:5:2: rule R1: {_LOWER}",
    ),
    "one place of two, unified": (
        rule('\t[input.process.comm, input.event.change] = ["x", "lowr"]'),
        f"p0.rego:5:2: rule R1: {_LOWER}",
    ),
    "one place of two, the other one unified": (
        rule('\t[x, input.event.change] = ["x", "lowr"]\n\tinput.process.comm == x'),
        f"p0.rego:5:2: rule R1: {_LOWER}",
    ),
    "one pair of several": (
        rule('\t[input.event.change, input.process.comm] in {["lower", "x"], ["lowr", "y"]}'),
        f"p0.rego:5:2: rule R1: {_LOWER}",
    ),
    "a pair by a pattern": (
        rule(
            '\tsome [how, name] in [["lowr", "x"], ["higher", "y"]]\n\tinput.event.change == how\n'
            "\tinput.process.comm == name"
        ),
        f"p0.rego:6:2: rule R1: {_LOWER}",
    ),
    "a pair in a function's arguments": (
        rule("\tknown([input.event.change, input.process.comm])", 'known([how, _]) if how == "lowr"\n'),
        f"p0.rego:7:20: rule R1: {_LOWER}",
    ),
    "an array in an array": (
        rule('\t[[input.event.change]] == [["lowr"]]'),
        f"p0.rego:5:2: rule R1: {_LOWER}",
    ),
    "a constant of `some`": (rule('\tsome "lowr" in [input.event.change]'), f"p0.rego:5:7: rule R1: {_LOWER}"),
    "arrays together": (
        rule('\tinput.event.change in array.concat(["lowr"], ["higher"])'),
        f"p0.rego:5:2: rule R1: {_LOWER}",
    ),
    "sets together": (
        rule('\tinput.event.change in ({"lowr"} | {"higher"})'),
        f"p0.rego:5:2: rule R1: {_LOWER}",
    ),
    "what two sets have": (
        rule('\tcount({f | some f in input.event.failed} & {"stack_usr", "stack_user"}) > 0', kind=FLAGS),
        f"p0.rego:5:8: rule R1: {_FLAG}",
    ),
    "what one set has": (
        rule('\tcount({f | some f in input.event.failed} - {"stack_usr"}) > 0', kind=FLAGS),
        f"p0.rego:5:8: rule R1: {_FLAG}",
    ),
    "what remains of a set": (
        rule('\t"stack_usr" in ({f | some f in input.event.failed} - {"stack_user"})', kind=FLAGS),
        f"p0.rego:5:2: rule R1: {_FLAG}",
    ),
    "each flag": (
        rule('\tevery f in input.event.failed { f in {"stack_usr", "stack_user"} }', kind=FLAGS),
        f"p0.rego:5:34: rule R1: {_FLAG}",
    ),
    "an object's value": (
        rule('\tinput.event.change in {"a": "lowr", "b": "higher"}'),
        f"p0.rego:5:2: rule R1: {_LOWER}",
    ),
    "an object's key": (
        rule('\tinput.event.change, 1 in {"lowr": 1, "higher": 1}'),
        f"p0.rego:5:2: rule R1: {_LOWER}",
    ),
    "an object's key by `some`": (
        rule('\tsome how, limit in {"lowr": 1, "higher": 2}\n\thow == input.event.change\n\tlimit < 2'),
        f"p0.rego:6:2: rule R1: {_LOWER}",
    ),
    "an object's key by object.get": (
        rule('\tobject.get({"lowr": 1, "higher": 2}, input.event.change, 0) == 2'),
        f"p0.rego:5:39: rule R1: {_LOWER}",
    ),
    "an object's part": (
        rule('\t{"how": input.event.change} == {"how": "lowr"}'),
        f"p0.rego:5:2: rule R1: {_LOWER}",
    ),
    "a rule's key": (
        rule("\tlimits[input.event.change] == 1", 'limits["lowr"] := 1\n\nlimits["higher"] := 1\n'),
        f"p0.rego:5:9: rule R1: {_LOWER}",
    ),
    "a function's constant": (
        rule("\tlimit(input.event.change) == 1", 'limit("higher") := 1\n\nlimit("lowr") := 1\n'),
        f"p0.rego:9:7: rule R1: {_LOWER}",
    ),
    "its beginning": (
        rule('\tstartswith(input.event.change, "lwo")'),
        'p0.rego:5:2: rule R1: input.event.change never begins with "lwo"; its values are higher, lower, none, other',
    ),
    "its end": (
        rule('\tendswith(input.event.change, "lwo")'),
        'p0.rego:5:2: rule R1: input.event.change never ends with "lwo"; its values are',
    ),
    "a part of it": (
        rule('\tcontains(input.event.change, "lwo")'),
        'p0.rego:5:2: rule R1: input.event.change never contains "lwo"; its values are',
    ),
    "kinds": (
        f'package krie.site\n\nrules contains {{"id": "R1", "action": "log"}} if {{\n'
        f'\t["{BPF}", "{BPF}x"][_] == input.event.kind\n}}\n',
        f'p0.rego:4:2: rule R1: "{BPF}x" is not a kind of event of any loaded plugin; did you mean {BPF}?',
    ),
}

IN_COLLECTIONS = {
    "a local object with the values of two fields": rule(
        '\tweight := {"bash": 2, "lower": 1}\n'
        "\tobject.get(weight, input.event.change, 0) + object.get(weight, input.process.comm, 0) > 2"
    ),
    "a function of sets and of objects": rule(
        '\tone_of(input.event.change, {"lower", "higher"})\n\tone_of(input.process.comm, {"sh": true})',
        "one_of(v, values) if {\n\tsome x in values\n\tx == v\n}\n\none_of(v, values) if values[v] == true\n",
    ),
    "everything": rule(
        '\tnot blocked(["*"], input.event.change)',
        'blocked(list, one) if {\n\tnot one in list\n\tnot "*" in list\n}\n',
    ),
    "other places of a pair": rule(
        '\tsome [how, name] in [["lower", "x"], ["higher", "y", "z"]]\n\tinput.event.change == how\n'
        "\tinput.process.comm == name"
    ),
    "other places of a pair by :=": rule(
        '\t[how, name] := ["lower", "x"]\n\tinput.event.change == how\n\tinput.process.comm == name'
    ),
    "wildcards are not each other": rule(
        '\tsome _ in input.event.helpers\n\t{"b", "c"}[_] == input.event.name', kind=BPF
    ),
    "wildcards of patterns": rule('\t[_, x] := [1, "a"]\n\t{"b", "c"}[_] == input.event.name\n\tinput.event.name != x'),
    "what an event has is taken out of a set": rule('\tcount({"lower", "xyz"} - {input.event.change}) < 2'),
    "a table for two fields": rule(
        "\tlimits[input.event.change] == 1\n\tlimits[input.event.name] == 1", 'limits := {"lower": 1, "kernel/x": 1}\n'
    ),
    "a rule's keys for two fields": rule(
        "\tlimits[input.event.change] == 1\n\tlimits[input.event.name] == 1",
        'limits["lower"] := 1\n\nlimits["kernel/x"] := 1\n',
    ),
    "a beginning": rule('\tstartswith(input.event.change, "hi")'),
    "beginnings for two fields": rule(
        "\tsome each in parts\n\tstartswith(input.event.change, each)\n\tcontains(input.event.name, each)",
        'parts := {"hi", "kernel"}\n',
    ),
}
"""What looks like them and may be meant."""
