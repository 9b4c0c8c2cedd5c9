"""The kernel tests on a kernel of the lab: `python -m tests.lab.suite LABEL`, with slow and long tests.

One boot runs one suite and hands back, in .cache/lab/LABEL: doctor.json, junit.xml, and the tests' folders with their
agents' journals.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys

from krie.errors import LabError
from krie.testing.lab import boot
from krie.testing.lab.acceleration import kvm_works
from krie.testing.lab.cache import Cache
from krie.testing.lab.kernels import find
from krie.testing.lab.modules import build_module
from krie.testing.needs import COMPILED_VARIABLE, MODULE_VARIABLE, SAMPLES_VARIABLE

from .. import durations
from ..kernel.quiet_tracers import LIVEPATCH_VARIABLE
from .findings import COMPILED_ANYWAY, TEXT, compiled_anyway, findings, passed
from .samples import build_samples
from .suites import ROOT, SUITES, Suite
from .units import compile_units

_APPEND = "krie.test_module=allow nopti mitigations=off oops=panic"
"""The module's exploit leaves the kernel as public ones do on kernels without page table isolation. What a kernel does
behind a fault of its own says nothing of KRIe, and often it waits for ever.
"""
_CACHE = "/var/cache/krie"
"""Where an agent keeps what it compiled: in a guest nothing, since all that its tests need was compiled before."""
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


def run(suite: Suite, *, slow: bool = False) -> boot.GuestExit:
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
    livepatch = build_module(kernel, ROOT / "tests/kernel/livepatch", cache, _say)
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
        "compiled_anyway": COMPILED_ANYWAY,
    }
    samples = f"{SAMPLES_VARIABLE}={build_samples(kernel, cache, _say)}" if slow else ""
    command = [
        "env",
        f"{MODULE_VARIABLE}={module}",
        f"{LIVEPATCH_VARIABLE}={livepatch}",
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
    which they run none. pytest would leave none where PYTHONDONTWRITEBYTECODE is set, as in many containers.
    """
    compiling = [sys.executable, "-m", "compileall", "-q", "core", "plugins", "policies", "bpf", "tests"]
    subprocess.run(compiling, cwd=ROOT, check=True)
    collecting = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--collect-only", "-m", marked]
    env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run([*collecting, "tests/kernel"], cwd=ROOT, env=env, capture_output=True, text=True)
    files = {line.partition("::")[0]: None for line in done.stdout.splitlines() if "::" in line}
    if done.returncode or not files:
        raise LabError(f"the kernel tests cannot be collected: {done.stdout[-TEXT:]}")
    return list(files)


def _say(text: str) -> None:
    print(text, file=sys.stderr)


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
