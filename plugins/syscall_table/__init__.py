"""What dispatches system calls, and the kernel's code, is what it was.

The attack: a module (or whoever can write kernel memory) diverts system calls: it overwrites a slot of
`sys_call_table`, a jump of the switch in `x64_sys_call()` that took the table's place (1e3ad78334a6), the first bytes
of a handler, the entry code, or a gate of the interrupt table.

What is observed: the *places* that a system call passes. The agent derives them at start from live memory and the
kernel's symbols, and cuts them into pieces that a BPF program hashes. A look at all of them is taken by a timer at
random intervals of about a second, and right away when a module's init function returns, when a module comes or goes,
after the kernel's code was patched by `text_poke()` and its successors, after an alias mapping was removed (`vunmap`),
and when memory becomes writable or executable. What differs is told once for each new value, and so is a place that is
as before again. Nothing needs to be known of an untouched system: at start, table and switch are compared with each
other and with the handlers' names, and pointers and gates with where the kernel and its modules lie, so that a system
that was hooked before the agent came is told, too. `krie integrity` takes that look alone.

Layer two, in a process of its own (`code_child`): at each scan, and after each finding, all of the kernel's code and
read-only data, and modules' code, are compared byte by byte with the boot image or, without one, the state at start.
Each difference is explained by what the kernel patches legally at exactly that place, or told.

What is not seen: a change that is undone between two looks and made by none of those triggers; data pointers that are
in no list of this plugin's; whoever has patched the functions by which BPF reads memory. Who made a change is known
only where the trigger is its maker's own doing, never for the timer.

False positives: kprobes inside the first bytes of a handler or in entry code change code legally. They are told with
`explained`, and no rule fires. What ftrace, jump labels and static calls patch is left out at exactly their places.
"""
