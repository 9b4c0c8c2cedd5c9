"""Who changes what runs in the kernel, or takes control over another process.

The attack: after a first foothold, kernels are weakened (sysctl), rootkits and bypasses are loaded (bpf), and other
processes are taken over (ptrace). None of it needs an exploit, only root, and all of it precedes most kernel attacks.

The mechanism observed: the kernel's own decision points. Where the kernel offers security hooks (LSM, or fmod_ret or a
kprobe on their `security_` functions), these; elsewhere the system call's entry, which makes every system call slower
and is therefore off unless allowed. sysctl writes come from a cgroup program, which can refuse and which no other
switch silences.

Limits: an attacker with kernel code execution does not need these calls. Writes of map elements are left out. A probe
at the system call's entry reads user memory that the caller can change meanwhile, and sees no access by /proc/TGID/mem.

False positives: debuggers and tracers, container managers and systemd, which load BPF; sysctl.d at boot. The rules name
them in data; see `policies/runtime_integrity`.
"""
