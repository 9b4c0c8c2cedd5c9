"""A sample, to be replaced by what clock is about, under the same headings: who sets the machine's clock.

The attack: with the clock set back, certificates that have expired are valid again, and what the logs tell has another
order; both cover tracks, and both need only root.

The mechanism observed: the kernel's own decision point, security_settime64(), by LSM or fmod_ret; elsewhere the system
call's entry, which makes every system call slower and is therefore off unless allowed.

Limits: adjtimex(2) moves the clock without passing here. A security hook that refuses first, such as the one that
wants a capability, hides the attempt from the LSM program. At the system call's entry 32-bit calls are not seen.

False positives: time daemons, hwclock at boot. krie.toml names them in [executables].
"""
