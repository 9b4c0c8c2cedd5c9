"""Who changes what runs in the kernel, or takes control over another process.

The attack: after a first foothold, kernels are weakened (sysctl), rootkits and bypasses are loaded (modules, bpf), what
others do is watched or changed (probes, performance events, socket filters), and other processes are taken over
(ptrace). None of it needs an exploit, only root, and all of it precedes most kernel attacks. An exploit that can write
one word ends often in the path of a program that the kernel starts as root (modprobe_path, core_pattern).

The mechanism observed: the kernel's own decision points. Where the kernel offers security hooks (LSM, or fmod_ret or a
kprobe on their `security_` functions), these; elsewhere the system call's entry, which makes every system call slower
and is therefore off unless allowed. sysctl writes come from a cgroup program, which can refuse and which no other
switch silences. Probes are seen at the functions of the kernel that all who register them call, which can refuse
nothing. What the kernel starts by itself is judged at its exec, so that it does not matter how its path came there, or
for how long it stood there.

Limits: an attacker with kernel code execution does not need these calls. Writes of map elements are left out. A probe
at the system call's entry reads user memory that the caller can change meanwhile, and sees no access by
/proc/TGID/mem. What a module is called is known too late to refuse it. Of a program that the kernel starts the
arguments are not known: one that is listed may be misused by them. The kernel lets nobody probe ftrace's own
functions: what modules patch by it is found by the next scan, and who did it is not.

Comparisons find what no probe sees: variables of the kernel that hold what they should not, and modules that hide,
every `scan_interval_s`; credentials that a thread was not given, where it uses them. An attacker who restores all
of it between two looks is not found, and one who rewrites what is compared with can deceive every one of them.

False positives: debuggers and tracers, container managers and systemd, which load BPF; sysctl.d at boot; udev, which
loads modules; tcpdump and DHCP clients. The rules name them in data; see `policies/runtime_integrity`.
"""
