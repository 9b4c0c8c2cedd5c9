"""Values and types in rules that cannot be meant, and what is said about them."""

from .warned import BPF, rule

# What, and the message; the first three lines are the package, an empty one, and the head.
VALUES = {
    "a value that an enumeration does not have": (
        rule('\tinput.event.change == "lowr"'),
        'p0.rego:5:2: rule R1: "lowr" is not a value of input.event.change; did you mean lower?',
    ),
    "not equal to it": (
        rule('\tinput.event.change != "lowr"'),
        'p0.rego:5:2: rule R1: "lowr" is not a value of input.event.change; did you mean lower?',
    ),
    "one of several": (
        rule('\tinput.event.change in {"lower", "highr"}'),
        'p0.rego:5:2: rule R1: "highr" is not a value of input.event.change; did you mean higher?',
    ),
    "by a variable": (
        rule('\tchange := input.event.change\n\tchange == "lowr"'),
        'p0.rego:6:2: rule R1: "lowr" is not a value of input.event.change; did you mean lower?',
    ),
    "in a helper": (
        rule("\tweakens", 'weakens if input.event.change == "lowr"\n'),
        'p0.rego:7:12: rule R1: "lowr" is not a value of input.event.change; did you mean lower?',
    ),
    "by a function's argument": (
        rule("\tweakens(input.event.change)", 'weakens(how) if how == "lowr"\n'),
        'p0.rego:7:17: rule R1: "lowr" is not a value of input.event.change; did you mean lower?',
    ),
    "by a constant rule": (
        rule("\tinput.event.change in changes", 'changes := {"lower", "highr"}\n'),
        'p0.rego:5:2: rule R1: "highr" is not a value of input.event.change; did you mean higher?',
    ),
    "by a constant rule, like none": (
        rule("\tinput.event.change in changes", 'changes := {"lower", "xyz"}\n'),
        'p0.rego:5:2: rule R1: "xyz" is not a value of input.event.change; ',
    ),
    "by an import": (
        rule('\tevent.change == "lowr"').replace("krie.site\n", "krie.site\nimport input.event\n"),
        'p0.rego:6:2: rule R1: "lowr" is not a value of input.event.change; did you mean lower?',
    ),
    "a flag that there is not": (
        rule('\t"stack_usr" in input.event.failed', kind="smep_smap.register_check"),
        'p0.rego:5:2: rule R1: "stack_usr" is not a value of input.event.failed[_]; did you mean stack_user?',
    ),
    "a flag by a variable": (
        rule(
            '\tsome check in {"return_user", "retrn_text"}\n\tcheck in input.event.failed',
            kind="smep_smap.register_check",
        ),
        'p0.rego:6:2: rule R1: "retrn_text" is not a value of input.event.failed[_]; did you mean return_text?',
    ),
    "a flag by an index": (
        rule('\tinput.event.failed[_] == "stack_usr"', kind="smep_smap.register_check"),
        'p0.rego:5:2: rule R1: "stack_usr" is not a value of input.event.failed[_]; did you mean stack_user?',
    ),
    "all flags": (
        rule('\tinput.event.failed == ["stack_usr"]', kind="smep_smap.register_check"),
        'p0.rego:5:2: rule R1: "stack_usr" is not a value of input.event.failed[_]; did you mean stack_user?',
    ),
    "a number and text": (
        rule('\tinput.event.new_int == "0"'),
        "p0.rego:5:2: rule R1: compares input.event.new_int (a number) with text by ==, which is never true; "
        "write 0 without quotes",
    ),
    "text and a number": (
        rule("\tinput.event.name == 0"),
        "p0.rego:5:2: rule R1: compares input.event.name (text) with a number by ==, which is never true; write both",
    ),
    "a number and text by order": (
        rule('\tinput.event.new_int < "5"'),
        "p0.rego:5:2: rule R1: compares input.event.new_int (a number) with text by <, which depends on their types",
    ),
    "a number among texts": (
        rule('\tinput.event.new_int in {"0", "1"}'),
        "p0.rego:5:2: rule R1: compares input.event.new_int (a number) with text by in, which is never true",
    ),
    "a number among texts of data": (
        rule("\tinput.event.new_int in data.programs"),
        "p0.rego:5:2: rule R1: compares input.event.new_int (a number) with text by in, which is never true",
    ),
    "a boolean and text": (
        rule('\tinput.event.new_parsed == "true"'),
        "p0.rego:5:2: rule R1: compares input.event.new_parsed (a boolean) with text by ==, which is never true",
    ),
    "null": (
        rule("\tinput.event.new_int != null"),
        "p0.rego:5:2: rule R1: compares input.event.new_int (a number) with null by !=, which is always true",
    ),
    "arrays of numbers and of texts": (
        rule("\tinput.health.degraded == [1]"),
        "p0.rego:5:2: rule R1: compares input.health.degraded (an array) of texts with an array of numbers by ==",
    ),
    "flags and a set": (
        rule('\tinput.event.failed == {"stack_user"}', kind="smep_smap.register_check"),
        "p0.rego:5:2: rule R1: compares input.event.failed (an array) with a set by ==, which is never true; "
        "write the set as an array, or ask by `in`",
    ),
    "an address and a number": (
        rule("\tinput.event.ip == 0", kind="smep_smap.register_check"),
        "p0.rego:5:2: rule R1: compares input.event.ip (text) with a number by ==, which is never true; "
        "write both as numbers or both as text; addresses are text",
    ),
    "in a text": (
        rule('\t"kernel" in input.event.name'),
        "p0.rego:5:14: rule R1: input.event.name (text) is not a collection, so nothing is in it; compare by ==",
    ),
    "the wrong argument": (
        rule('\tstartswith(input.event.new_int, "1")'),
        "p0.rego:5:2: rule R1: argument 1 of startswith is input.event.new_int (a number); it must be text",
    ),
    "arithmetic with text": (
        rule("\tinput.event.name + 1 == 2"),
        "p0.rego:5:2: rule R1: an operand of plus is input.event.name (text); it must be a number",
    ),
    "a document that no rule can meet": (
        rule("\tsome _, range in data.protected_sysctls\n\tinput.event.new_int < range.exactly"),
        "p0.rego:3: rule R1: it never fires: with the data as they are, it is false for every event",
    ),
    "two values at once": (
        rule('\tinput.event.change == "lower"\n\tinput.event.change == "higher"'),
        "p0.rego:3: rule R1: it never fires: it is false for all 3 combinations of the values that it compares;",
    ),
    "numbers that exclude each other": (
        rule("\tinput.event.new_int > 5\n\tinput.event.new_int < 3"),
        "p0.rego:3: rule R1: it never fires",
    ),
    "a value and not": (
        rule("\tinput.event.new_parsed\n\tnot helper", "helper if input.event.new_parsed\n"),
        "p0.rego:3: rule R1: it never fires: it is false for all 2 combinations",
    ),
    "texts that exclude each other": (
        rule('\tinput.event.name == "a"\n\tinput.event.name in {"b", "c"}'),
        "p0.rego:3: rule R1: it never fires",
    ),
    "the host's names": (
        rule('\tinput.host.name == "a"\n\tinput.host.name == "b"'),
        "p0.rego:3: rule R1: it never fires",
    ),
    "an event of the agent's": (
        rule('\tinput.event.state == "silent"\n\tinput.event.state == "missing"', kind="krie.probe"),
        "p0.rego:3: rule R1: it never fires",
    ),
    "two kinds at once": (
        rule(f'\tinput.event.kind == "{BPF}"'),
        "p0.rego:3: rule R1: it never fires",
    ),
    "false": (rule("\tfalse"), "p0.rego:3: rule R1: it never fires: it is false for every event"),
    "a value looked up in a set": (
        rule('\t{"lower", "highr"}[input.event.change]'),
        'p0.rego:5:21: rule R1: "highr" is not a value of input.event.change; did you mean higher?',
    ),
    "a value looked up in a rule's set": (
        rule("\tchanges[input.event.change]", 'changes contains "lower"\nchanges contains "highr"\n'),
        'p0.rego:5:10: rule R1: "highr" is not a value of input.event.change; did you mean higher?',
    ),
    "a value looked up in an object": (
        rule('\t{"lower": 1, "highr": 2}[input.event.change] == 1'),
        'p0.rego:5:27: rule R1: "highr" is not a value of input.event.change; did you mean higher?',
    ),
    "what no key of an object has": (
        rule('\t{"a": 1, "b": 2}[input.event.name] == 3'),
        "p0.rego:5:2: rule R1: compares a number of at least 1 and at most 2 with 3 by ==, which is never true; "
        "compare with another value",
    ),
    "a text that no key of an object has": (
        rule('\t{"a": "x"}[input.event.name] == "y"'),
        'p0.rego:5:2: rule R1: compares "x" with "y" by ==, which is never true; compare with another value',
    ),
    "a number looked up among texts": (
        rule('\t{"1": 1, "2": 2}[input.event.new_int] == 1'),
        "p0.rego:5:19: rule R1: compares input.event.new_int (a number) with text by in, which is never true",
    ),
    "a pattern that is none": (
        rule('\tregex.match("(", input.event.name)'),
        "p0.rego:3: rule R1: it cannot be evaluated for an event of runtime_integrity.sysctl_write in which everything "
        "is 0 or empty: p0.rego:5:18: invalid regex",
    ),
    "a pattern that is none, behind a condition": (
        rule('\tinput.event.name == "a"\n\tregex.match("(", "a")'),
        "p0.rego:3: rule R1: it cannot be evaluated for some event of runtime_integrity.sysctl_write: p0.rego:6:18: ",
    ),
    "a unit that is none": (
        rule('\tunits.parse("a") == 1'),
        "p0.rego:3: rule R1: it cannot be evaluated for an event of",
    ),
    "two values of a rule": (
        rule("\tx == 1", "x := 1\nx := 2\n"),
        "p0.rego:3: rule R1: it cannot be evaluated for an event of",
    ),
    "two values of a function": (
        rule("\tf(1) == 1", "f(_) := 1\nf(_) := 2\n"),
        "p0.rego:3: rule R1: it cannot be evaluated for an event of",
    ),
    "an error while it is tried": (
        rule("\tto_number(input.event.change) == 5"),
        "p0.rego:3: rule R1: it cannot be evaluated for an event of",
    ),
    "a division by what may be 0": (
        rule("\t10 / input.event.old_int > 5"),
        "p0.rego:3: rule R1: it cannot be evaluated for an event of",
    ),
    "a value by object.get": (
        rule('\tobject.get(input.event, "change", "") == "lowr"'),
        'p0.rego:5:2: rule R1: "lowr" is not a value of input.event.change; did you mean lower?',
    ),
    "a value by object.get, of several": (
        rule('\tchange := object.get(input.event, ["change"], "none")\n\tchange in {"lower", "highr"}'),
        'p0.rego:6:2: rule R1: "highr" is not a value of input.event.change; did you mean higher?',
    ),
    "a misspelt program among data": (
        rule('\tinput.process.program in ["sysctll"]'),
        'p0.rego:5:2: rule R1: "sysctll" is not a program that',
    ),
    "a value with itself": (
        rule("\tinput.event.new_int != input.event.new_int"),
        "p0.rego:5:2: rule R1: compares input.event.new_int with itself by !=; compare with another value",
    ),
    "a variable with itself": (
        rule("\tname := input.event.name\n\tname < name"),
        "p0.rego:6:2: rule R1: compares name with itself by <",
    ),
}
