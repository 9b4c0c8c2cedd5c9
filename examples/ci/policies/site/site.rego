# METADATA
# title: Rules of this site
package krie.site

# METADATA
# title: Somebody chooses what the kernel starts at a crash
# description: |
#   Whoever writes kernel/core_pattern has the kernel run a program as root. Here a file in /etc/sysctl.d decides,
#   which systemd-sysctl applies.
# custom:
#   id: SITE001
#   severity: high
#   action: override
#   technique: T1574
#   seen: |
#     The write fails with EPERM. Change the file in /etc/sysctl.d, and restart systemd-sysctl.
rules contains {"id": "SITE001", "action": "override", "errno": 1} if {
	input.event.kind == "runtime_integrity.sysctl_write"
	input.event.name == "kernel/core_pattern"
	input.process.program != "systemd-sysctl"
}

# METADATA
# title: A service account looks into another process
# description: |
#   Accounts of services have no reason to trace anything. Who breaks into a service often does so next.
# custom:
#   id: SITE002
#   severity: medium
#   action: log
#   technique: T1055.008
#   seen: |
#     Nothing.
rules contains {"id": "SITE002", "action": "log"} if {
	input.event.kind == "runtime_integrity.ptrace"
	input.process.uid >= 100
	input.process.uid < 1000
}
