# What virtme-ng's init reads first in a guest that shall have another init: see init.py.
unset BASH_ENV
setsid() { # called once all is mounted, for the command's script: -c bash SCRIPT, with a terminal or without
	[ "$1" != -c ] || shift
	mkfifo /run/krie-lab-init
	(
		command setsid --wait "$@" </dev/null
		sync
		busybox poweroff -f # at once; it ends also a process 1 that waits for a name
	) &
	local init
	read -r init </run/krie-lab-init
	exec $init </dev/null >/dev/console 2>&1
}
