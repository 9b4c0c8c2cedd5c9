"""Names in rules that cannot be meant: of fields, documents, programs, kinds, METADATA and the rules themselves."""

from .warned import BPF, PTRACE, rule

# What, and the message; the first three lines are the package, an empty one, and the head.
NAMES = {
    "a field that there is not": (
        rule("\tinput.event.nmae == 5"),
        "p0.rego:5:2: rule R1: input.event has no nmae; did you mean name?",
    ),
    "a field of the process": (
        rule('\tinput.process.exee == "/x"'),
        "p0.rego:5:2: rule R1: input.process has no exee; did you mean exe?",
    ),
    "a field of the parent": (
        rule('\tinput.process.parent.com == "x"'),
        "p0.rego:5:2: rule R1: input.process.parent has no com; did you mean comm?",
    ),
    "a field of the host": (
        rule('\tinput.host.nmae == "x"'),
        "p0.rego:5:2: rule R1: input.host has no nmae; did you mean name?",
    ),
    "a field of the health": (
        rule("\tinput.health.losd > 0"),
        "p0.rego:5:2: rule R1: input.health has no losd; did you mean lost?",
    ),
    "a part of the input": (
        rule('\tinput.hots.name == "x"'),
        "p0.rego:5:2: rule R1: input has no hots; did you mean host?",
    ),
    "a field of an ancestor": (
        rule('\tsome a in input.process.ancestors\n\ta.exee == "/x"'),
        "p0.rego:6:2: rule R1: input.process.ancestors[_] has no exee; did you mean exe?",
    ),
    "a field of an ancestor by index": (
        rule('\tinput.process.ancestors[_].exee == "/x"'),
        "p0.rego:5:2: rule R1: input.process.ancestors[_] has no exee; did you mean exe?",
    ),
    "a field of ancestors in a comprehension": (
        rule('\tcount([a | some a in input.process.ancestors; a.exee == "/x"]) > 0'),
        "p0.rego:5:48: rule R1: input.process.ancestors[_] has no exee; did you mean exe?",
    ),
    "a field of ancestors by `every`": (
        rule('\tevery a in input.process.ancestors { a.exee != "/x" }'),
        "p0.rego:5:39: rule R1: input.process.ancestors[_] has no exee; did you mean exe?",
    ),
    "a field of the target": (
        rule('\tinput.event.target.progam == "apt"', kind=PTRACE),
        "p0.rego:5:2: rule R1: input.event.target has no progam; did you mean program?",
    ),
    "a field where `walk` shall lead to": (
        rule('\twalk(input.host, [["nmae"], value])\n\tvalue == "x"'),
        "p0.rego:5:2: rule R1: input.host has no nmae; did you mean name?",
    ),
    "a field where `walk` leads to": (
        rule('\twalk(input.host, [p, v])\n\tp == ["nmae"]\n\tv == "x"'),
        'p0.rego:6:2: rule R1: "nmae" is not a name in input.host; did you mean name?',
    ),
    "a step of where `walk` leads to": (
        rule('\twalk(input.process, [p, v])\n\tp[count(p) - 1] == "comn"\n\tv == "x"'),
        'p0.rego:6:2: rule R1: "comn" is not a name in input.process; did you mean comm?',
    ),
    "a field by json.filter, nmae": (
        rule('\tjson.filter(input.host, ["nmae"]) == {}'),
        "p0.rego:5:2: rule R1: input.host has no nmae; did you mean name?",
    ),
    "a field by json.filter, host, nmae], process": (
        rule('\tjson.filter(input, {["host", "nmae"], "process"}) == {}'),
        "p0.rego:5:2: rule R1: input.host has no nmae; did you mean name?",
    ),
    "a field by json.remove, /parent/comn": (
        rule('\tjson.remove(input.process, ["/parent/comn"]) == {}'),
        "p0.rego:5:2: rule R1: input.process.parent has no comn; did you mean comm?",
    ),
    "a field by object.filter, nmae": (
        rule('\tobject.filter(input.host, {"nmae"}) == {}'),
        "p0.rego:5:2: rule R1: input.host has no nmae; did you mean name?",
    ),
    "a field by object.remove, nmae": (
        rule('\tobject.remove(input.host, ["nmae"]) == {}'),
        "p0.rego:5:2: rule R1: input.host has no nmae; did you mean name?",
    ),
    "a field beside what `with` replaces": (
        rule('\tinput.host.nmae == "x" with input.process.uid as 5'),
        "p0.rego:5:2: rule R1: input.host has no nmae; did you mean name?",
    ),
    "below a number": (
        rule("\tinput.event.new_int.value == 5"),
        "p0.rego:5:2: rule R1: input.event.new_int (a number) has nothing below it; drop what follows it",
    ),
    "a document": (
        rule("\tdata.protected_sysctl[input.event.name]"),
        "p0.rego:5:2: rule R1: data has no protected_sysctl; did you mean protected_sysctls?",
    ),
    "a document in `in`": (
        rule("\tinput.event.name in data.program"),
        "p0.rego:5:22: rule R1: data has no program; did you mean programs?",
    ),
    "a key of a document": (
        rule("\tdata.deep.won.two == input.event.new_int"),
        "p0.rego:5:2: rule R1: data.deep has no won; did you mean one?",
    ),
    "an import of a document": (
        rule("\tinput.event.name in known").replace("krie.site\n", "krie.site\nimport data.program as known\n"),
        "p0.rego:6:22: rule R1: data has no program; did you mean programs?",
    ),
    "a rule of a package": (
        rule("\tdata.krie.site.halper", "helper if input.process.uid == 5\n"),
        "p0.rego:5:2: rule R1: data.krie.site.halper is neither a rule nor a package; "
        "did you mean data.krie.site.helper?",
    ),
    "a package": (
        rule("\tdata.krie.sight.helper", "helper if input.process.uid == 5\n"),
        "p0.rego:5:2: rule R1: data.krie.sight.helper is neither a rule nor a package; "
        "did you mean data.krie.site.helper?",
    ),
    "another package's rules": (
        rule("\ttrue", "answers := {r.id | some r in data.krie.other.rules}\n"),
        "p0.rego:7:30: rule answers of krie.site: data.krie.other.rules is neither a rule nor a package",
    ),
    "a program that nobody defines": (
        rule('\tinput.process.program == "sysctll"'),
        'p0.rego:5:2: rule R1: "sysctll" is not a program that [executables] of krie.toml names; did you mean sysctl?',
    ),
    "programs of which one is not defined": (
        rule('\tinput.process.program in {"apt", "dpkg"}'),
        'p0.rego:5:2: rule R1: "dpkg" is not a program that [executables] of krie.toml names; give it this '
        "name there, or check the name; there are apt, sysctl",
    ),
    "programs of a rule's set, of which one is not defined": (
        rule("\tinput.process.program in tools", 'tools := {"apt", "dpkgg"}\n'),
        'p0.rego:5:2: rule R1: "dpkgg" is not a program that [executables] of krie.toml names; give it '
        "this name there, or check the name; there are apt, sysctl",
    ),
    "programs of a rule's array": (
        rule("\tinput.process.parent.program in tools", 'tools := ["apt", "dpkgg"]\n'),
        'p0.rego:5:2: rule R1: "dpkgg" is not a program that [executables] of krie.toml names; give it '
        "this name there, or check the name; there are apt, sysctl",
    ),
    "programs of a rule's set, one after the other": (
        rule("\tinput.process.program in tools", 'tools contains "apt"\n\ntools contains "dpkgg"\n'),
        'p0.rego:5:2: rule R1: "dpkgg" is not a program that [executables] of krie.toml names; give it '
        "this name there, or check the name; there are apt, sysctl",
    ),
    "programs of a rule's set, by an index": (
        rule("\ttools[input.process.program]", 'tools := {"apt", "dpkgg"}\n'),
        'p0.rego:5:8: rule R1: "dpkgg" is not a program that [executables] of krie.toml names; give it '
        "this name there, or check the name; there are apt, sysctl",
    ),
    "programs of a rule's set, in a helper": (
        rule(
            "\tsome a in input.process.ancestors\n\tknown(a.program)",
            'known(name) if name in tools\n\ntools := {"apt", "dpkgg"}\n',
        ),
        'p0.rego:8:16: rule R1: "dpkgg" is not a program that [executables] of krie.toml names; give it '
        "this name there, or check the name; there are apt, sysctl",
    ),
    "the parent's program": (
        rule('\tinput.process.parent.program != "sysctll"'),
        'p0.rego:5:2: rule R1: "sysctll" is not a program that [executables]',
    ),
    "the target's program": (
        rule('\tinput.event.target.program == "sysctll"', kind=PTRACE),
        'p0.rego:5:2: rule R1: "sysctll" is not a program that [executables]',
    ),
    "a kind": (
        rule("\ttrue", kind="runtime_integrity.sysctl"),
        'p0.rego:4:2: rule R1: "runtime_integrity.sysctl" is not a kind of event of any loaded plugin; did you mean '
        "runtime_integrity.sysctl_write?",
    ),
    "one of several kinds": (
        'package krie.site\n\nrules contains {"id": "R1", "action": "log"} if {\n'
        f'\tinput.event.kind in {{"{BPF}", "{BPF}x"}}\n}}\n',
        f'p0.rego:4:2: rule R1: "{BPF}x" is not a kind of event of any loaded plugin; did you mean {BPF}?',
    ),
    "an action unlike the rule's": (
        rule("\ttrue", head="# METADATA\n# custom: {id: R1, action: kill}\n"),
        "p0.rego:4:28: rule R1: its METADATA say action kill, and the rule log; make both the same",
    ),
    "an id unlike the rule's": (
        rule("\ttrue", head="# METADATA\n# custom:\n#   id: R2\n"),
        "p0.rego:5:9: rule R1: its METADATA say id R2, and the rule R1; make both the same",
    ),
    "a severity that is none": (
        rule("\ttrue", head="# METADATA\n# custom:\n#   severity: hihg\n"),
        "p0.rego:5:15: rule R1: hihg is not a severity; did you mean high?",
    ),
    "a severity of another scale": (
        rule("\ttrue", head="# METADATA\n# custom:\n#   severity: 3\n"),
        "p0.rego:5:15: rule R1: 3 is not a severity; write one of low, medium, high, critical",
    ),
    "enforce": (
        rule("\ttrue", head="# METADATA\n# custom: {enforce: inlne}\n"),
        "p0.rego:4:21: rule R1: enforce is inlne, which means nothing; write inline, or drop it",
    ),
    "a field by object.get": (
        rule('\tobject.get(input.host, "nmae", "") == "web1"'),
        "p0.rego:5:2: rule R1: input.host has no nmae; did you mean name?",
    ),
    "a field by object.get and a path": (
        rule('\tobject.get(input, ["host", "nmae"], "") == "web1"'),
        "p0.rego:5:2: rule R1: input.host has no nmae; did you mean name?",
    ),
    "a field of the event by object.get": (
        rule("\te := input.event\n\tobject.get(e, `new_nit`, 0) == 1"),
        "p0.rego:6:2: rule R1: input.event has no new_nit; did you mean new_int?",
    ),
    "a key that no element of the data has": (
        rule("\tdata.protected_sysctls[input.event.name].leest > input.event.new_int"),
        "p0.rego:5:2: rule R1: no element of data.protected_sysctls has leest; did you mean least?",
    ),
    "a key that no element of the data has, by a variable": (
        rule("\tsome range in data.protected_sysctls\n\trange.mosst > input.event.new_int"),
        "p0.rego:6:2: rule R1: no element of data.protected_sysctls has mosst; did you mean most?",
    ),
    "rules by some": (
        'package krie.site\n\nruls contains r if {\n\tsome r in [{"id": "R1", "action": "kill"}]\n}\n',
        "p0.rego:3: rule ruls of krie.site: ruls contains what looks like rules, and nobody asks for it",
    ),
    "rules of a comprehension": (
        'package krie.site\n\nruls := {{"id": "R1", "action": "kill"} | input.process.uid == 5}\n',
        "p0.rego:3: rule ruls of krie.site: ruls is what looks like rules, and nobody asks for it",
    ),
    "a set of rules": (
        'package krie.site\n\nruls := {{"id": "R1", "action": "kill"}} if input.process.uid == 5\n',
        "p0.rego:3: rule ruls of krie.site: ruls is what looks like rules, and nobody asks for it",
    ),
    "METADATA of a rule above a package": (
        "# METADATA\n# custom: {enforce: inline}\n" + rule('\tinput.event.change == "lower"'),
        "p0.rego:2:21: custom.enforce belongs to no rule, and means nothing here; put it right above its rule",
    ),
    "METADATA of a rule above a helper": (
        rule("\thelper", "# METADATA\n# custom:\n#   severity: hihg\nhelper if input.event.new_parsed\n"),
        "p0.rego:9:15: custom.severity belongs to no rule",
    ),
    "METADATA of a rule above all rules of a name": (
        rule(
            '\tinput.event.change == "lower"',
            head="# METADATA\n# scope: document\n# custom: {action: [log]}\n# METADATA\n# title: t\n",
        ),
        "p0.rego:3: custom.action belongs to no rule",
    ),
    "a key of METADATA": (
        rule("\ttrue", head="# METADATA\n# titel: t\n"),
        "p0.rego:3: rule R1: METADATA has no key titel; did you mean title?",
    ),
    "a key of custom": (
        rule("\ttrue", head="# METADATA\n# custom: {severty: high}\n"),
        "p0.rego:3: rule R1: custom has no key severty; did you mean severity?",
    ),
    "severity beside custom": (
        rule("\ttrue", head="# METADATA\n# severity: high\n"),
        "p0.rego:3: rule R1: METADATA has no key severity; put keys of your own below custom",
    ),
    "a list of techniques": (
        rule("\ttrue", head="# METADATA\n# custom: {technique: [T1]}\n"),
        "p0.rego:3: rule R1: custom.technique is not text; write one text",
    ),
    "rule instead of rules": (
        rule("\ttrue", 'rule contains {"id": "R2", "action": "kill"} if input.event.new_int == 5\n'),
        "p0.rego:7: rule rule of krie.site: rule contains what looks like rules, and nobody asks for it; name it rules",
    ),
    "rule instead of rules, alone": (
        'package krie.site\nrule contains {"id": "R2", "action": "kill"} if input.process.uid == 5\n',
        "p0.rego:2: rule rule of krie.site: rule contains what looks like rules",
    ),
    "rules of another name": (
        'package krie.site\ndetections contains {"id": "R2", "action": "kill", "scope": "process"} if true\n',
        "p0.rego:2: rule detections of krie.site: detections contains what looks like rules",
    ),
    "rules as a value": (
        rule("\ttrue", 'rule := {"id": "R2", "action": "log"} if input.process.uid == 5\n'),
        "p0.rego:7: rule rule of krie.site: rule is what looks like rules, and nobody asks for it; write `rules",
    ),
    "rules as an object": (
        rule("\ttrue", 'rule[name] := {"id": "R2", "action": "kill"} if name := input.event.name\n'),
        "p0.rego:7: rule rule of krie.site: rule is what looks like rules",
    ),
    "rules by a variable": (
        rule("\ttrue", 'rule contains r if {\n\tr := {"id": "R2", "action": "log"}\n\tinput.process.uid == 5\n}\n'),
        "p0.rego:7: rule rule of krie.site: rule contains what looks like rules, and nobody asks for it; name it rules",
    ),
    "in what no rule uses": (
        rule("\ttrue", 'unused if input.process.parent.com == "x"\n'),
        "p0.rego:7:11: rule unused of krie.site: input.process.parent has no com; did you mean comm?",
    ),
}
