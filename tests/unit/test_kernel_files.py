"""Files of the kernel's in /proc and /sys, whatever somebody mounts over them."""

import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from krie import kernel_files, procfs
from krie.kernel_files import KernelFile, boot_id, let_go, tell_what_can_be_covered
from krie.tree import Tree

COVERED = """
import errno, os, signal, subprocess, sys
from krie import kernel_files, procfs

if sys.argv[1] == "fallback":
    procfs.open_procfs = kernel_files.open_root = lambda *_: -1
from krie.agent.presence import _busy_s
from krie.agent.resident import resident
from krie.enforce.resources import Resources, _online
from krie.enforce.self_defence import _mount_of, held_files
from krie.kernel.attach import kprobe_type, online_cpus
from krie.kernel.maps import possible_cpus
from krie.kernel.modules import loaded_modules
from krie.kernel.mounts import mounted
from krie.kernel.symbols import addresses
from krie.kernel_files import KernelFile, boot_id

def names(path):
    return sorted(each.name for each in KernelFile(path).iterdir())

LOOKS = {
    "/proc/modules": lambda: [each.name for each in loaded_modules()],
    "/proc/kallsyms": lambda: addresses({"commit_creds"}),
    f"/proc/{os.getpid()}/mountinfo": lambda: len(mounted("proc")) > 0,
    f"/proc/{os.getpid()}/smaps": lambda: resident(os.getpid()).total > 0,
    f"/proc/{os.getpid()}/oom_score_adj": lambda: Resources()._oom,
    f"/proc/{os.getpid()}/fdinfo": lambda: [_mount_of(2), list(held_files())],
    f"/proc/{os.getpid()}/fd": lambda: KernelFile("/proc/self/fd/2").link(),
    "/proc/sys/kernel/random/boot_id": boot_id,
    "/proc/sys/kernel": lambda: KernelFile("/proc/sys/kernel/ftrace_enabled").exists(),
    "/sys/module": lambda: names("/sys/module"),
    "/sys/kernel/notes": lambda: KernelFile("/sys/kernel/notes").read_bytes().hex(),
    "/sys/devices/system/cpu/online": lambda: [online_cpus(), sorted(_online())],
    "/sys/devices/system/cpu": possible_cpus.__wrapped__,
    "/sys/bus": kprobe_type,
}
NOTHING = (None, False, -1)
signal.alarm(60)  # who opens a FIFO waits for ever
looks = {path: (look, look()) for path, look in LOOKS.items() if os.path.exists(path)}
assert len(looks) > 10
os.mkfifo("fifo")
open("forged", "w").write("evil 4096 0 - Live 0x0\\n")
for path in looks:
    over = ["-t", "tmpfs", "none"] if os.path.isdir(path) else ["--bind", sys.argv[2]]
    subprocess.run(["mount", *over, path], check=True)
for path, (look, before) in looks.items():
    try:
        now = look()
    except OSError as error:
        assert (sys.argv[1], error.errno) == ("fallback", errno.EXDEV), (path, error)
    else:
        assert now == before if sys.argv[1] == "own" else now in NOTHING, (path, now, before)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts")
@pytest.mark.parametrize("over", ["forged", "/dev/null", "/dev/zero", "fifo"])
@pytest.mark.parametrize("how", ["own", "fallback"])
def test_what_is_mounted_over_them_is_not_read(tmp_path: Path, how: str, over: str) -> None:
    command = ("unshare", "-m", sys.executable, "-c", COVERED, how, over)
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=100)
    assert done.returncode == 0, done.stderr


@pytest.fixture(autouse=True)
def afresh() -> Iterator[None]:
    """Each test opens what it needs."""
    let_go()
    yield
    let_go()


def test_it_has_what_it_needs_of_a_path() -> None:
    folder, path = KernelFile("/sys/module"), Path("/sys/module")
    assert {each.name for each in folder.iterdir()} == set(os.listdir(path))
    version = KernelFile("/proc/version")
    assert version.read_bytes() == Path("/proc/version").read_bytes()
    assert version.read_text() == Path("/proc/version").read_text()
    with version.open("rb") as lines:
        assert list(lines) == [version.read_bytes()]
    assert KernelFile("/proc") / "self" / "fd" == KernelFile("/proc/self/fd")
    assert [KernelFile(each).exists() for each in ("/proc", "/proc/self/stat", "/proc/nothing", "/sys/nothing")] == [
        *(True, True, False, False)
    ]
    assert KernelFile("/sys/module").stat().st_ino == path.stat().st_ino
    assert (version.name, str(version)) == ("version", "/proc/version")


def test_what_is_wrong_is_said_with_the_path() -> None:
    for path in ("/proc/nothing", "/sys/nothing"):
        for use in (KernelFile(path).read_bytes, KernelFile(path).iterdir, KernelFile(path).link):
            with pytest.raises(FileNotFoundError) as raised:
                use()
            assert raised.value.filename == path
    with pytest.raises(OSError, match="/etc/passwd") as outside:
        KernelFile("/etc/passwd").read_bytes()
    assert outside.value.errno == errno.EXDEV


def test_it_is_written_to_by_one_call() -> None:
    name = KernelFile("/proc/self/comm")
    before = name.read_bytes()
    name.write_bytes(b"krie-test")
    assert Path("/proc/self/comm").read_text() == "krie-test\n"
    name.write_bytes(before)


def test_a_file_of_another_file_system_is_of_that_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """As debugfs, which is below sysfs; where the kernel has none, it is asked once."""
    asked: list[str] = []

    def refuses(type_: str) -> int:
        asked.append(type_)
        return -1

    monkeypatch.setattr(kernel_files, "open_root", refuses)
    monkeypatch.setattr(kernel_files, "_TYPES", {"/sys": "sysfs", "/sys/none": "nonefs"})
    for _ in range(2):
        assert not KernelFile("/sys/none/file").exists()
    assert asked == ["nonefs"]
    monkeypatch.undo()
    assert not KernelFile("/sys/nonesuch").exists()  # is another name


def test_want_of_descriptors_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EMFILE, "x")

    with monkeypatch.context() as patched:
        patched.setattr(kernel_files, "open_root", fail)
        with pytest.raises(OSError, match="x") as raised:
            KernelFile("/sys/module").exists()
        assert (raised.value.errno, raised.value.filename) == (errno.EMFILE, "/sys/module")
    assert KernelFile("/sys/module").exists()


def test_a_child_has_those_of_its_own() -> None:
    assert KernelFile("/sys/module").exists()
    assert kernel_files._own
    child = os.fork()
    if not child:
        os._exit(0 if not kernel_files._own and KernelFile("/sys/module").exists() else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_nothing_stays_open_of_what_is_let_go_of() -> None:
    before = len(os.listdir("/proc/self/fd"))
    assert KernelFile("/sys/module").exists()
    assert boot_id()
    assert len(os.listdir("/proc/self/fd")) == before + 2
    let_go()
    assert len(os.listdir("/proc/self/fd")) == before


def test_it_is_told_where_there_is_none(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    tell_what_can_be_covered()
    assert os.geteuid() != 0 or not caplog.text
    let_go()
    monkeypatch.setattr(procfs, "open_procfs", lambda: -1)
    monkeypatch.setattr(kernel_files, "open_root", lambda _: -1)
    with closing(Tree.at(tmp_path)) as cgroups:
        tell_what_can_be_covered(cgroups)
    for place in ("/proc", "/sys", "cgroup v2"):
        assert caplog.text.count(f"{place} has to be read where it is mounted") == 1


@pytest.mark.parametrize("left", range(4))
def test_few_descriptors_make_no_file_coverable(left: int) -> None:
    """What is opened later is that of the own mount, as if there had always been room."""
    code = f"""
import os, resource
from krie import kernel_files
from krie.kernel_files import KernelFile
from krie.procfs import procfs
KernelFile("/proc/self/status").exists()  # so that all is imported
kernel_files.let_go()
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) - 1 + {left}, hard))
for each in ("/proc/self/status", "/sys/module"):
    try:
        KernelFile(each).exists()
    except OSError as error:
        assert error.errno == 24, error
resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
for each in ("/proc/self/status", "/sys/module"):
    assert KernelFile(each).exists()
assert procfs().sees_mounts and kernel_files._own["/sys"].sees_mounts
if os.geteuid() == 0:
    assert not procfs().is_mounted and not kernel_files._own["/sys"].is_mounted
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_folder_is_no_file_and_leaves_nothing_open() -> None:
    folder = KernelFile("/sys/module")
    assert folder.exists()
    before = len(os.listdir("/proc/self/fd"))
    for use in (folder.read_bytes, folder.open):
        with pytest.raises(IsADirectoryError):
            use()
    assert len(os.listdir("/proc/self/fd")) == before
