"""Ordinary work of administrators, tracers and containers, on which no rule may alert. One line each.

Commands of /bin/sh, run as root. One that ends with status 77 could not be run: its last line on standard error names
what the kernel or the guest lacks (`feature: what it is`), as `krie.testing` wants it. $SAMPLES is the folder of the
kernel's own samples, built; $NOBODY runs a command as nobody.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Workload:
    """One thing that people do."""

    name: str
    command: str
    programs: str = ""
    """That must be installed: `tools/setup kernels` does it."""
    may_log: str = ""
    """Rules of action `log` that may fire all the same, because they are meant to tell of this."""
    would_refuse: str = ""
    """Rules that refuse part of it where they are enforced: an attacker does the same, with the same tool."""


# fmt: off
_BUILT = "[ -d \"$SAMPLES\" ] || { echo samples: of the kernel source, built >&2; exit 77; }; "
_HEADERS = "[ -e /lib/modules/$(uname -r)/build ] || { echo headers: of the kernel, which bcc compiles against >&2; exit 77; }; "
# perf looks at every module file there is, which an emulated guest gets from the host one by one: minutes.
_NO_MODULE_FILES = "unshare -m sh -c 'mount -t tmpfs none /lib/modules/$(uname -r)/kernel && exec \"$@\"' sh "
_USERNS = " || { echo user_namespaces: of ordinary users >&2; exit 77; }"


def _loop(module: str) -> str:
    return _BUILT + f"for i in 1 2 3 4 5; do insmod $SAMPLES/{module}.ko && ls / && rmmod {module} || exit; done"


def _storm(stressor: str) -> str:  # 3, 4: it cannot run here
    return f"stress-ng --{stressor} 1 --timeout 4 2>&1; case $? in 0) ;; 3|4) echo stressor_{stressor}: of stress-ng >&2; exit 77;; *) exit 1;; esac"


WORKLOADS = (
    # Modules
    Workload("modprobe", "for i in 1 2 3 4 5; do modprobe dummy numdummies=1 && modprobe -r dummy || exit; done", "modprobe"),
    Workload("insmod-ftrace", _loop("ftrace-direct"), "insmod", may_log="PROBE004"),  # where a scan finds its patch
    Workload("insmod-kprobe", _loop("kprobe_example"), "insmod"),
    Workload("insmod-kretprobe", _loop("kretprobe_example"), "insmod"),
    Workload("livepatch", _BUILT + "cd /sys/kernel/livepatch || { echo livepatch: of the kernel >&2; exit 77; }; insmod $SAMPLES/livepatch-sample.ko && while [ $(cat livepatch_sample/transition) = 1 ]; do sleep 0.2; done; grep 'this has been live patched' /proc/cmdline || exit; echo 0 >livepatch_sample/enabled; while [ -d livepatch_sample ]; do sleep 0.2; done; rmmod livepatch_sample", "insmod"),
    # Tracers
    Workload("function-tracer", "cd /sys/kernel/tracing; echo vfs_open >set_ftrace_filter; echo function >current_tracer; ls /; echo nop >current_tracer; echo >set_ftrace_filter"),
    Workload("kprobe-events", "cd /sys/kernel/tracing; echo 'p:benign vfs_open' >kprobe_events; echo 1 >events/kprobes/enable; ls /; echo 0 >events/kprobes/enable; echo >kprobe_events"),
    Workload("bpftrace-kprobe", "bpftrace -e 'kprobe:vfs_open { @[comm] = count(); } interval:s:2 { exit(); }'", "bpftrace", may_log="BPF001 PERF001"),
    Workload("bpftrace-tracepoint", "bpftrace -e 'tracepoint:sched:sched_process_exec { @ = count(); } interval:s:2 { exit(); }'", "bpftrace", may_log="BPF001"),
    Workload("bcc-execsnoop", _HEADERS + "timeout -s INT 60 execsnoop-bpfcc; [ $? = 124 ]", "execsnoop-bpfcc", may_log="BPF001"),
    Workload("bpftool", "bpftool prog list; bpftool map list; bpftool link list", "bpftool", may_log="BPF001"),
    Workload("bpftool-feature", "bpftool feature probe kernel >/dev/null", "bpftool", may_log="BPF001", would_refuse="BPF002 BPF007 BPF008"),  # calls every helper once
    Workload("perf-stat", "perf stat -e context-switches,page-faults ls / 2>&1", "perf"),
    Workload("perf-record", _NO_MODULE_FILES + "perf record -q -e cpu-clock -F 99 -a -g -o /tmp/benign.data -- sleep 0.5", "perf unshare"),
    Workload("perf-tracepoint", _NO_MODULE_FILES + "perf record -q -e sched:sched_switch -o /tmp/benign.data -- sleep 0.2", "perf unshare"),
    Workload("strace", "strace -f -o /dev/null sh -c 'true; ls / | cat'", "strace"),
    Workload("strace-nobody", "$NOBODY strace -f -o /dev/null sh -c 'true; ls / | cat'", "strace setpriv"),
    Workload("strace-attach", "sleep 9 & sleep 1; timeout -s INT 2 strace -o /dev/null -p $!; kill $!", "strace"),
    Workload("gdb", "gdb -q -batch -ex 'break write' -ex run -ex bt -ex continue --args cat /proc/version", "gdb"),
    # Other users
    Workload("sudo", "sudo -n id && sudo -n -u nobody id", "sudo"),
    Workload("su", "su -s /bin/sh nobody -c id && su -c id", "su"),
    Workload("setpriv", "$NOBODY id", "setpriv"),
    Workload("accounts", "useradd benign && echo benign:benign | chpasswd && userdel benign", "useradd chpasswd"),
    # Containers
    Workload("unshare", "unshare -mpfuin true && unshare -Urmpf true", "unshare"),
    Workload("unshare-nobody", "$NOBODY unshare -Ur true" + _USERNS, "unshare setpriv"),
    Workload("bwrap", "bwrap --ro-bind / / --dev /dev --unshare-all --die-with-parent sh -c 'id; ls /'", "bwrap"),
    Workload("bwrap-nobody", "$NOBODY bwrap --ro-bind / / --dev /dev --unshare-user --unshare-net true" + _USERNS, "bwrap setpriv"),
    # Settings
    Workload("sysctl-system", "sysctl --system", "sysctl"),
    Workload("sysctl-same", "sysctl -w kernel.kptr_restrict=$(sysctl -n kernel.kptr_restrict) kernel.core_uses_pid=1", "sysctl"),
    # Storms
    *(Workload(f"stress-{each}", _storm(each), "stress-ng") for each in "cap set key ptrace seccomp prctl session".split()),
    *(Workload(f"stress-{each}-nobody", "cd /tmp; $NOBODY " + _storm(each), "stress-ng setpriv") for each in "cap set key ptrace seccomp prctl session".split()),
)
# fmt: on
