# Runs inside the guest, as root, around the command: guest.sh SHARED RESULTS FOLDER SECONDS PROGRAMS CACHED...
cd "$1" || exit 1
export PATH=$5:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root USER=root LOGNAME=root LANG=C.UTF-8
export SHELL=/bin/bash TMPDIR=/tmp KRIE_LAB_RESULTS="$2"
have() { # type, place: mounted, if the kernel has it
	grep -q " $2 $1 " /proc/mounts || mount -t "$1" "$1" "$2" 2>/dev/null
}
have tracefs /sys/kernel/tracing
have debugfs /sys/kernel/debug
have securityfs /sys/kernel/security
have bpf /sys/fs/bpf
have cgroup2 /sys/fs/cgroup
ip link set lo up 2>/dev/null || busybox ip link set lo up 2>/dev/null || busybox ifconfig lo 127.0.0.1 up
# A name that /etc/hosts knows: sudo asks for its address, and no name server is there to answer.
echo localhost >/proc/sys/kernel/hostname
# As under systemd: the command is not in the root of the cgroup tree.
mkdir -p /sys/fs/cgroup/lab.slice && echo $$ >/sys/fs/cgroup/lab.slice/cgroup.procs
# virtme-ng asks the host again for each look at a file, which is half of what starting a Python takes. So these folders
# are seen once more in a way that remembers; they may not change meanwhile, as files of tests do not.
again=/run/krie-again
mkdir -p $again/host $again/modules
if mount -t 9p -o ro,trans=virtio,version=9p2000.L,msize=524288,cache=loose krie.again $again/host; then
	mount --bind "/lib/modules/$(uname -r)" $again/modules
	for folder in "${@:6}"; do
		mkdir -p "$again$folder/upper" "$again$folder/work"
		mount -t overlay -o "lowerdir=$again/host$folder,upperdir=$again$folder/upper,workdir=$again$folder/work" \
			krie "$folder"
	done
	mkdir -p "/lib/modules/$(uname -r)" && mount --bind $again/modules "/lib/modules/$(uname -r)"
fi
here=$PWD
touch booted
if cd "$3" 2>/dev/null; then
	# The host ends us when the time is over. Should the host's side be gone, this does.
	timeout -k 10 "$4" bash "$here/command" </dev/null >>"$here/output" 2>&1
	status=$?
else
	echo "krie lab: a guest does not see $3, since it has a /run, /var/tmp, /var/log and /var/cache of its own" >>"$here/output"
	status=7
fi
dmesg >"$here/dmesg" 2>/dev/null
echo $status >"$here/status.new" && mv "$here/status.new" "$here/status"
sync
