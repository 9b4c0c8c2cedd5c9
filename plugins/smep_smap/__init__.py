"""A hijacked kernel, caught where exploits must go.

The attack: a memory error of the kernel's gives control over where it executes next. What follows is nearly always
one of a few calls: take root's credentials (commit_creds, prepare_kernel_cred, override_creds), run a helper as root
(call_usermodehelper_exec), leave a container (switch_task_namespaces), make memory executable or code writable
(set_memory_*), switch kprobes off. They are reached by a chain of return addresses, on a stack that the attacker
wrote.

The mechanism observed: kprobes at these functions look at the registers. At a function's entry the stack pointer
points at the return address: it must be in the kernel's code, or that of a module, and right behind a call
instruction; the stack pointer must not be in user memory, nor, in functions that run in the context of a process,
outside of the task's own kernel stack; and nobody hands out `init_cred` itself after boot. Two traps a function, at
calls and jumps drawn at random (one near its begin, one anywhere), check the stack of chains that jump past the entry;
override_creds, which overlayfs calls all the time, has none, since each run of a trap takes an exception. Traps are new
at each start and moved at an interval. A hijack is decided in the kernel: in
mode `enforce` the process is poisoned and killed by the program that saw it, before the function runs. There is no
check of frame pointers: most kernels are built without.

What is not seen: attacks on data only (a page table, a credential, modprobe_path written directly); chains that keep to
the task's own stack and return to legal call sites (JOP, COP, and a return placed behind a call); chains that use none
of these functions; whoever enters a function past its begin on the task's own stack, or past both traps; whoever comes
while the kernel leaves kprobes out, since another process was preempted on this CPU in the middle of a bpf(2) call
about a map (`krie.missed` counts it on kernels since 6.7; the agent itself lets no ordinary process preempt it there,
if it has CAP_SYS_NICE). Short functions have few calls and jumps: where the two traps do not both find one, the second
is missing. Where a tracer follows a function's return (kretprobe, fprobe,
function_graph), the return address is the tracer's trampoline and says nothing: the other checks are made, and the
calls are counted as `traced`. A return address that was good is not looked at again until the function is called from
elsewhere on that CPU: where its module is gone meanwhile, and other code behind it, that code is not looked at. Where
the list of kprobes cannot be read (a kernel without debugfs, lockdown), nobody notices a trap that vanished;
`smep_smap.trap` says so once. Where kernel.kptr_restrict is 2, addresses are hidden, so traps cannot be set and
`return_text` and `init_cred` are never found. Who controls the kernel can also remove the probes: what is promised is
that who does not is held.

Alive: three functions have a canary (commit_creds, override_creds, switch_task_namespaces). Nothing harmless reaches
the others on every kernel, nor any one instruction inside a function: these probes are shown as attached, and never
as alive. `smep_smap.activity` tells at each scan how many checks were made.

False positives: none is known. Kernel live patching and ftrace call through their own code, behind calls. A return
address whose call is being rewritten right now (a breakpoint stands in its place) counts as legal. A function that is
configured with context `process` but runs in interrupts too would be found on a foreign stack: if in doubt say `any`.

One record a thread and second: a chain that calls two of these functions is one attempt. All are decided about, and
counted.

Cost: each time one of these functions runs, a kprobe, two reads of kernel memory (three on 5.10; one less where it was
called from the same place before) and three of maps; at a trap, a kprobe and one read of each; no record. The busy ones
are commit_creds (each change of credentials and each exec), switch_task_namespaces (each end of a process) and
override_creds (on kernels before 6.3 each access(2), on all of them overlay file systems and coredumps).
"""
