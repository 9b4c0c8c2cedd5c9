package krie.runtime_integrity

# METADATA
# title: A process has credentials that it was not given
# description: |
#   Users, groups, capabilities, keyrings, the user namespace, what these hold, or the whole credentials of a thread
#   changed without commit_creds(), or seccomp forbids it less than before: a write to kernel memory, which is how
#   exploits become root and leave sandboxes.
# custom:
#   id: CRED001
#   severity: critical
#   action: kill
#   technique: T1068
#   seen: |
#     The process ends before it forks, execs, changes its credentials or uses a capability, or as it writes to a file.
#     No ordinary work causes this.
rules contains {"id": "CRED001", "action": "kill", "scope": "process"} if {
	input.event.kind == "runtime_integrity.cred_tamper"
}
