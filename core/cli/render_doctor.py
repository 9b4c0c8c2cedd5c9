"""What people see of `krie doctor`: made of its JSON document alone, which may come from a running agent."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console

from ..loader.origin import Origin
from .render import engine, line, lines, state, table, told

_LOCKED = (
    "memory can be read and probes be attached in this mode; most of debugfs is closed, so that nobody can switch "
    "kprobes off there, nor put that right. Under confidentiality nothing of KRIe would work"
)


def doctor(console: Console, report: Mapping[str, Any]) -> None:
    """The whole report."""
    kernel, probes = report["kernel"], report["probes"]
    _verdict(console, report)
    console.print(line(("KRIe", "bold"), f" {report['version']}, ", ("kernel", "bold"), f" {kernel['release']}"))
    source = report["from"]
    here = "tried now, nothing stays attached"
    console.print(line(f"as the running agent (tgid {source['agent']}) reports" if source else here))
    because = f": {report['programs']['problem']}" if report["programs"]["problem"] else ""
    console.print(line(f"programs {Origin(report['programs']['from']).text}{because}"))
    for type_, why in kernel["refused"].items():
        console.print(line(f"  refuses {type_}: ", (why.partition("\n")[0], "dim")))
    if kernel["lockdown"]:
        console.print(line(("locked down", "yellow"), f" ({kernel['lockdown']}): {_LOCKED}"))
    rows = [(each["name"], state(each["state"]), each["alternative"] or "-", lines(each["reason"])) for each in probes]
    console.print(table("Probes", ("probe", "state", "by", "what to know"), rows, apart=True))
    _containment(console, report["containment"])
    _guard(console, report["guard"])
    unfilled = [(each["name"], ", ".join(each["not_filled"])) for each in probes if each["not_filled"]]
    if unfilled:
        console.print(table("Fields without a real value here", ("probe", "fields"), unfilled, apart=True))
    not_taken = [
        (each["name"], name, reason.partition("\n")[0])
        for each in probes
        for name, reason in each["alternatives"].items()
        if reason not in ("alive", "not needed")
    ]
    if not_taken:
        console.print(table("Alternatives not taken", ("probe", "alternative", "why"), not_taken, apart=True))
    blind = [(each["id"], each["place"], each["why"]) for each in report["blind_rules"]]
    if blind:
        console.print(table("Blind rules", ("rule", "place", "why"), blind, apart=True))
    for problem in report["problems"]:
        console.print(line(("note", "yellow"), f" {problem}"))
    for plugin, reason in report["degraded"].items():
        console.print(line(("degraded", "bold red"), f" {plugin}: ", told(reason)))
    engine(console, report["engine"])


def _verdict(console: Console, report: Mapping[str, Any]) -> None:
    """Whether everything works, and what to do about what does not."""
    without = [each["name"] for each in report["probes"] if each["state"] == "missing" and each["optional"]]
    works = f"All probes work but {', '.join(without)}, which this kernel lacks" if without else "All probes work"
    well, ill = (f"{works}; no rule is blind", "green"), ("Something does not work", "bold red")
    console.print(line(well if report["healthy"] else ill, f" ({report['rules']} rules, revision {report['policy']})"))
    for each in _advice(report):
        console.print(line(("  -> ", "yellow"), each))
    console.print()


def _advice(report: Mapping[str, Any]) -> Iterator[str]:
    """One sentence for each sort of trouble; the tables below have the details."""
    for name in report["degraded"]:
        yield f"plugin {name} is degraded, for the reason at the end: correct it, or take [plugins.{name}] out"
    states = {state: [e["name"] for e in report["probes"] if e["state"] == state] for state in ("silent", "missing")}
    if states["silent"]:
        what = (
            "attached, but did not see a test operation; compare kernel.ftrace_enabled (1), kprobes/enabled in debugfs"
        )
        yield f"{_few(states['silent'])}: {what} (1), and for lsm that /sys/kernel/security/lsm names bpf"
    if needed := [e["name"] for e in report["probes"] if e["state"] == "missing" and not e["optional"]]:
        yield f"{_few(needed)}: this kernel has no way to see this; the table says what it lacks"
    if blind := sorted({each["id"] for each in report["blind_rules"]}):
        yield f"{_few(blind)}: cannot fire here, for lack of a probe or a field; rely on others, or on another kernel"
    if report["containment"]["enforces"] and report["containment"]["refused"] < report["containment"]["of"]:
        yield "a plugin enforces, but poison does not hold: a kill can be survived for a moment; see below"
    if slow := [each["name"] for each in report["probes"] if each["every_syscall"]]:
        yield f"{_few(slow)}: every system call is slower; agent.allow_syscall_tracepoints = false leaves these out"


def _few(names: Sequence[str], most: int = 4) -> str:
    """The first ones, and how many there are besides."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{', '.join(names[:most])}{more}"


def _containment(console: Console, found: Mapping[str, Any]) -> None:
    """What poison is worth here: one line where all or nothing works, a table of what does not otherwise."""
    poison = ("Poison", "bold")
    can = f"{found['refused']} of {found['of']} guarded operations can be refused"
    console.print()
    if not found["loaded"]:
        why = ": an agent that only observes does not load what refuses operations"
        console.print(line(poison, " is ", ("not tried", "yellow"), why))
    elif found["refused"] == found["of"]:
        by = ", ".join(sorted({each["alternative"] for each in found["probes"] if each["refuses"]}))
        all_of_them = f": all {found['of']} guarded operations can be refused, by {by}"
        console.print(line(poison, " ", ("holds", "green"), all_of_them))
    elif not found["refused"]:
        why = " here: no guarded operation can be refused; a kill is a signal and no more"
        console.print(line(poison, " ", ("cannot hold", "bold red"), why))
        console.print(line("  ", (found["probes"][0]["reason"].partition("\n")[0], "dim")))
    else:
        console.print(line(poison, " ", ("leaks", "bold red"), f": {can}"))
        missing = [each for each in found["probes"] if not each["refuses"] and each["state"] != "alive"]
        rows = [(each["name"].partition(".")[2], state(each["state"]), lines(each["reason"])) for each in missing]
        console.print(table("Not refused", ("operation", "state", "why"), rows))


def _guard(console: Console, found: Mapping[str, Any]) -> None:
    """What the agent can refuse to strangers here, in one line; nothing where it was not tried."""
    if not found["loaded"]:
        return
    guard, count = ("Guard", "bold"), len(found["probes"])
    missing = [each["name"].partition(".")[2] for each in found["probes"] if each["state"] in ("missing", "silent")]
    if not missing:
        console.print(line(guard, " ", ("holds", "green"), f": all {count} hooks are there"))
    else:
        lacks = f": {len(missing)} of {count} hooks do not work here: {', '.join(missing)}"
        console.print(line(guard, " ", ("leaks", "bold red"), lacks))
