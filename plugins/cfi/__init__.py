"""Locked functions of the kernel: called from their callers only; and acts that need a capability.

The attack: whoever controls what the kernel executes next, or has code of their own in it, calls functions that give
power: commit_creds, prepare_kernel_cred, call_usermodehelper_exec, set_memory_*, switch_task_namespaces
(`locked.toml`). `smep_smap` tells the chains that give themselves away by their stack, or by a return address that no
call precedes. This plugin knows the callers: in 6.12 commit_creds() has 32, where some 207,000 places are behind a
call.

The mechanism observed: a kprobe at the entry of each locked function looks up the return address among the legal ones.
These come from the lock file of this build (`locks/`, made by `krie cfi derive`), so that its functions are locked when
the agent is armed. A process of its own derives them from the running kernel's code meanwhile (direct calls; tail calls
followed): what differs is told in `cfi.lock`, and functions that no file knows are locked then. A call from elsewhere
is decided in the kernel: in mode `enforce` the process is poisoned and killed by the program that saw it, before the
function runs. Functions that calls by a pointer may reach, by ways that `locked.toml` does not name, are `certain:
false`: calls from unknown places are told, and nobody is killed.

Modules call locked functions where their files below /lib/modules do, by the relocations in these (`module_file.py`); a
module is taken for its file by name and build id. A process of its own reads them, when the callers were derived and
after modules came. Until then, and where a module has no file, calls from it are told (CFI004); that one makes
credentials is told where it is known that its file does not, or that it has none (CFI007), since network file systems
do so when they are loaded. Who may write below /lib/modules makes callers legal. Credentials that gain something have
to come by the right system call all the same.

Credentials that are committed, by whomever, may have what the task's own have not (root's user, capabilities, another
user or user namespace) in a few system calls only, each a row of `locked.toml`; elsewhere, and in kernel threads, that
is decided likewise. And there only by a task that has the right to it: the question that the system call asks on its
way is asked again, of the credentials that the task has (`gains.bpf.c`), so that who passes the kernel's check by, or
forges its answer, is told. There is no program at the entry of system calls, nor at the checks: number and credentials
are read where something is gained. Where a tracer follows a function's return (kretprobe, fprobe, function_graph), the
return address is the tracer's and says nothing of the caller; such calls are counted as `traced`, and what they gain is
looked at all the same.

Acts (where `acts` is set; those in `locked.toml`): where the kernel asks its security modules, which is behind its own
check, the right is judged again: file capabilities written, a set-uid file made root's, files opened for writing, the
release agent of a cgroup, device nodes, modules, mounts. Neither the task's own credentials nor those that it acts by
have it: then the check is missing or was passed by, and the act is refused (CFI005). Where right and wrong cannot be
told apart there (mounts that map users, network file systems, files that their group may write), nothing is said;
`judged` says so of each act.

Where kernel.kptr_restrict is 2 or the kernel's memory cannot be read, nothing is locked, and the plugin says so.

What is not seen: attacks on data only (a credential overwritten, a page table, modprobe_path); who forges a return
address that is a legal caller's (or a tracer's) and gains nothing, or gains it in a system call that may give it; who
enters a function behind its begin (the traps of smep_smap look at the stack there); within execve(2), past its checks,
who gains an effective user or capabilities of the bounding set and leaves the real user as it is; calls through a legal
indirect call with a forged pointer; functions that the compiler copied into their callers (override_creds in newer
kernels); all other functions.

Not there yet: that the outermost frame of the stack is an entry of the kernel (the stack is in the event, as evidence);
It is a lock on chosen doors, and no control-flow integrity of the kernel: kCFI, FineIBT and shadow stacks check every
call.

False positives: none is known among what kills. Among what is refused, eCryptfs: it opens the files below it for
writing on behalf of readers. While live patches are loaded, whose functions may take the place of legal callers, no
function is `certain`, and calls from modules are only told (CFI004); between the moment when a patch is loaded and the
next scan it would be taken for any other module. Modules that call call_usermodehelper() or set_memory functions in the
seconds after they were loaded, or have no file, are told by CFI004.

Cost: an open for writing takes a few reads of kernel memory, any other open one. Each call of a locked function takes a
kprobe, one read of kernel memory and a few lookups; smep_smap has a probe of its own at most of them, and the kernel
runs both programs from one breakpoint or ftrace call. The derivation takes a second of CPU time and 100 MB, in a
process that yields to others and ends.
"""
