"""The kernel tests on a kernel of the lab: `python -m tests.lab.suite LABEL`, with slow and long tests.

One boot runs one suite and hands back, in .cache/lab/LABEL: doctor.json, junit.xml, and the tests' folders with their
agents' journals.
"""

from __future__ import annotations

import json
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

from krie.errors import LabError
from krie.testing.lab import boot
from krie.testing.lab.acceleration import kvm_works
from krie.testing.lab.cache import Cache
from krie.testing.lab.kernels import find
from krie.testing.lab.modules import build_module
from krie.testing.needs import COMPILED_VARIABLE, MODULE_VARIABLE, SAMPLES_VARIABLE

from .. import durations
from .samples import build_samples
from .units import compile_units

ROOT = Path(__file__).parents[2]
_APPEND = "krie.test_module=allow nopti mitigations=off"
"""The module's exploit leaves the kernel as public ones do on kernels without page table isolation."""
_CACHE = "/var/cache/krie"
"""Where an agent keeps what it compiled: in a guest nothing, since all that its tests need was compiled before."""
_COMPILED_ANYWAY = "compiled"
_TEXT = 3000
"""Characters that are shown of a failed test."""
_UNPROTECTED = "max,-smep,-smap"
_COMMAND = """
export KRIE_REQUIRE_KERNEL=1 KRIE_MAY_LACK=%(may_lack)s PYTEST_DISABLE_PLUGIN_AUTOLOAD=1
cd %(root)s
before=$(ls -A %(cache)s 2>/dev/null)
sed "s|^[[]agent]|&\\ncompiled_dir = '$%(compiled)s'|" krie.toml > krie-of-the-guest.toml
.venv/bin/krie doctor --json --config krie-of-the-guest.toml > "$KRIE_LAB_RESULTS/doctor.json"
echo '{"test": "doctor", "phase": "doctor", "seconds": '$SECONDS'}' > "$KRIE_LAB_RESULTS/%(durations)s"
%(headers)s
umount /etc/shadow  # the lab's, which is put over it; useradd renames it
.venv/bin/python -m pytest -v -p no:cacheprovider --durations=5 -m '%(marked)s' %(files)s \\
    --junitxml="$KRIE_LAB_RESULTS/junit.xml" --basetemp="$KRIE_LAB_RESULTS/tests"
status=$?
comm -13 <(echo "$before") <(ls -A %(cache)s 2>/dev/null) > "$KRIE_LAB_RESULTS/%(compiled_anyway)s"
exit $status
"""
_HEADERS = """
release=$(uname -r) modules=/lib/modules/$(uname -r) headers=%s
ln -sfn "$headers/linux-headers-$release" "$modules/build"
ln -sfn "$headers/linux-headers-${release%%-amd64}-common" "$modules/source"
"""
"""Where programs of BCC look for the kernel's headers."""


@dataclass(frozen=True, slots=True)
class Suite:
    """One kernel with its command line."""

    label: str
    kernel: str
    alternative: str
    """What each probe that has a choice should take: the first one that can be alive there."""
    append: str = ""
    cpu: str = ""
    """QEMU's CPU model with flags. Without SMEP and SMAP where attackers need the kernel to run on their memory."""
    may_lack: str = "kprobe_override"
    """Features, separated by blanks, that tests may need and that this kernel does not have."""
    shows_programs: bool = False
    """Its security hooks see the kernel's own copy of a BPF program that is being loaded."""
    stock: bool = True
    """Somebody's kernel, not one of our own: then slow tests, of ordinary work, are worth their time."""
    always: bool = False
    """Part of `make test`, without slow and long tests."""

    @property
    def results(self) -> Path:
        """Where its last run left what it found."""
        return ROOT / ".cache/lab" / self.label

    def times(self) -> str:
        """What its last run's time went into."""
        return durations.summary(self.results)


SUITES = (
    Suite(
        "debian-5.10",
        "debian-5.10",
        "fmod_ret",
        # bpf is not in its lsm=
        may_lack="bpf_token ftrace_switch kprobe_override lsm lsm_static_calls missed_kprobes no_smep no_smap "
        "poked_data signal_kfunc signed_programs switch syscall_program task_btf timer_bases verified_insns",
        always=True,
    ),
    Suite(
        "debian-5.10-lsm",
        "debian-5.10",
        "lsm",
        append="lsm=lockdown,yama,apparmor,bpf",
        cpu=_UNPROTECTED,
        may_lack="bpf_token ftrace_switch kprobe_override lsm_static_calls missed_kprobes poked_data signal_kfunc "
        "signed_programs switch syscall_program task_btf timer_bases verified_insns",
    ),
    Suite(
        "debian-6.1",
        "debian-6.1",
        "lsm",
        cpu=_UNPROTECTED,
        may_lack="bpf_token kprobe_override lsm_static_calls missed_kprobes signal_kfunc signed_programs timer_bases",
    ),
    Suite(
        "debian-6.12",
        "debian-6.12",
        "lsm",
        cpu=_UNPROTECTED,
        may_lack="kprobe_override signal_kfunc signed_programs",
        shows_programs=True,
        always=True,
    ),
    Suite(
        "debian-newest",
        "debian-newest",
        "lsm",
        may_lack="kprobe_override no_smep no_smap override_creds ftrace_switch",
        shows_programs=True,
    ),
    Suite(
        "override",
        "override",
        "lsm",
        may_lack="boot_image lock_file no_smep no_smap signal_kfunc signed_programs",
        shows_programs=True,
        stock=False,
    ),
)


@dataclass(frozen=True, slots=True)
class Findings:
    """What a suite's last run found."""

    suite: Suite
    doctor: dict[str, Any]
    tests: int
    failed: tuple[str, ...]
    skipped: int = 0
    why: tuple[str, ...] = ()
    """The end of what each failed test said."""
    compiled: tuple[str, ...] = ()
    """What the guest compiled, though `units.py` should have had it."""
    figures: Mapping[str, str] = field(default_factory=dict)
    """What tests recorded as their properties."""
    day: str = ""
    """When that was."""


def run(suite: Suite, *, slow: bool = False) -> boot.Outcome:
    """Boot, test, with slow and long tests or without, and leave everything in `suite.results`."""
    results = suite.results
    shutil.rmtree(results, ignore_errors=True)
    results.mkdir(parents=True)
    marked = "kernel and not once" if slow else "kernel and not once and not slow and not long"
    files = compile_python(marked)
    cache = Cache()
    kernel = find(suite.kernel, cache, _say)
    machine = boot.Machine(append=f"{_APPEND} {suite.append}", cpu=suite.cpu, kvm=kvm_works(kernel.image, cache))
    module = build_module(kernel, ROOT / "tests/kernel/kmod", cache, _say)
    headers = _HEADERS % shlex.quote(f"{kernel.headers}/usr/src") if slow and kernel.headers is not None else ""
    values = {
        "headers": headers,
        "root": shlex.quote(str(ROOT)),
        "may_lack": shlex.quote(suite.may_lack),
        "marked": marked,
        "files": shlex.join(files),
        "durations": durations.FILE,
        "cache": _CACHE,
        "compiled": COMPILED_VARIABLE,
        "compiled_anyway": _COMPILED_ANYWAY,
    }
    samples = f"{SAMPLES_VARIABLE}={build_samples(kernel, cache, _say)}" if slow else ""
    command = [
        "env",
        f"{MODULE_VARIABLE}={module}",
        f"{COMPILED_VARIABLE}={compile_units(kernel, cache)}",
        *([samples] if slow else []),
        "bash",
        "-c",
        _COMMAND % values,
    ]
    with (results / "output").open("wb", buffering=0) as file:
        return boot.run(kernel, command, machine, timeout_s=10800 if slow else 4900, results=results, output=file.write)


def compile_python(marked: str) -> list[str]:
    """Leave bytecode beside the sources, that of tests as pytest rewrites them; returns the files with wanted tests.

    Guests see the bytecode, and cannot keep theirs: compiling takes them half a minute, and so does importing tests of
    which they run none.
    """
    compiling = [sys.executable, "-m", "compileall", "-q", "core", "plugins", "policies", "bpf", "tests"]
    subprocess.run(compiling, cwd=ROOT, check=True)
    collecting = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--collect-only", "-m", marked]
    done = subprocess.run([*collecting, "tests/kernel"], cwd=ROOT, capture_output=True, text=True)
    files = {line.partition("::")[0]: None for line in done.stdout.splitlines() if "::" in line}
    if done.returncode or not files:
        raise LabError(f"the kernel tests cannot be collected: {done.stdout[-_TEXT:]}")
    return list(files)


def _say(text: str) -> None:
    print(text, file=sys.stderr)


def findings(suite: Suite) -> Findings:
    """What its last run found; nothing, where there was none."""
    file = suite.results / "junit.xml"
    if not file.exists():
        return Findings(suite, _doctor(suite.results), 0, ("no test ran",))
    cases, ran = list(ET.parse(file).iter("testcase")), file.stat().st_mtime
    problems = {
        f"{case.get('classname')}::{case.get('name')}": found.text or ""
        for case in cases
        if (found := next((each for each in case if each.tag in ("failure", "error")), None)) is not None
    }
    skipped = sum(case.find("skipped") is not None for case in cases)
    figures = {each.get("name", ""): each.get("value", "") for case in cases for each in case.iter("property")}
    why = tuple(each[-_TEXT:] for each in problems.values())
    file = suite.results / _COMPILED_ANYWAY
    anyway = tuple(file.read_text().split()) if file.exists() else ()
    day = date.fromtimestamp(ran).isoformat()
    return Findings(suite, _doctor(suite.results), len(cases), tuple(problems), skipped, why, anyway, figures, day)


def passed(outcome: boot.Outcome, found: Findings) -> bool:
    """Everything ran, nothing failed, and nothing was compiled in the guest but by the tests of compiling."""
    well = outcome.end is boot.End.EXITED and outcome.status == 0
    return well and not found.failed and not found.compiled and found.tests > 0


def compiled_anyway(found: Findings) -> str:
    """What to say of a guest that compiled; nothing of one that did not."""
    return (
        f"the guest compiled {len(found.compiled)} units that tests/lab/units.py does not have"
        if found.compiled
        else ""
    )


def _doctor(results: Path) -> dict[str, Any]:
    file = results / "doctor.json"
    text = file.read_text() if file.exists() else ""
    return dict(json.loads(text)) if text else {}


def table(results: list[Findings]) -> str:
    """Probe by kernel, as Markdown."""
    probes = [each["name"] for each in next((r.doctor for r in results if r.doctor), {"probes": []})["probes"]]
    rows = [["probe", *map(_column, results)]]
    rows.append(["---"] * len(rows[0]))
    for probe in probes:
        rows.append([f"`{probe}`", *(_cell(r.doctor, probe) for r in results)])
    rows.append(["poison: guarded operations refused", *(_poison(r.doctor) for r in results)])
    rows.append(["tests passed", *map(_passed, results)])
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _column(found: Findings) -> str:
    """Which kernel, and what of KRIe the column is about."""
    of = (found.doctor.get("kernel", {}).get("release", "?"), f"KRIe {found.doctor.get('version', '?')}", found.day)
    return "<br>".join([found.suite.label, *filter(None, of)])


def checks(results: list[Findings]) -> str:
    """How many checks smep_smap made in each work, by kernel, as Markdown."""
    rows = [["work", *(r.suite.label for r in results)]]
    rows.append(["---"] * len(rows[0]))
    for work in dict.fromkeys(name for r in results for name in r.figures):
        rows.append([work, *(r.figures.get(work, "-") for r in results)])
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _passed(found: Findings) -> str:
    passed = found.tests - len(found.failed) - found.skipped
    return f"{passed} of {found.tests}" + (f", {found.skipped} skipped" if found.skipped else "")


def _poison(doctor: dict[str, Any]) -> str:
    found = doctor.get("containment")
    if found is None:
        return "?"
    by = sorted(
        {each["alternative"] for each in found["probes"] if each["alternative"] not in (None, "raw_tracepoint")}
    )
    return f"{found['refused']} of {found['of']}" + (f", {', '.join(by)}" if by else "")


def _cell(doctor: dict[str, Any], name: str) -> str:
    found = next((each for each in doctor.get("probes", []) if each["name"] == name), None)
    if found is None:
        return "?"
    can = f" ({', '.join(found['can'])})" if found["can"] else ""
    return f"{found['alternative']}, {found['state']}{can}" if found["alternative"] else str(found["state"])


def main(label: str) -> int:
    """Run one suite, with slow and long tests where that is somebody's kernel; 1 where anything failed."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # a guest must end with us
    (suite,) = (each for each in SUITES if each.label == label)
    outcome = run(suite, slow=suite.stock)
    found = findings(suite)
    if passed(outcome, found):
        print(f"{found.tests} tests passed or were skipped")
        return 0
    said = (suite.results / "output").read_text(errors="replace").splitlines()
    print(
        "\n".join(
            [*said[-60:], *outcome.console, f"({outcome.end.value}) {', '.join(found.failed)}", compiled_anyway(found)]
        )
    )
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
