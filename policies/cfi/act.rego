package krie.cfi

# METADATA
# title: An operation is done without the required capability
# description: |
#   An act that needs a capability, or ownership of the file, by a task that has it neither by its own credentials nor
#   by those that it acts by: a file gets capabilities or becomes set-uid root's, a file that only its owner may write
#   is opened for writing or emptied, the release agent of a cgroup is opened for writing, a device node is made, a
#   module loaded, a mount changed. The kernel's own check comes before: it is missing, or was bypassed, as in
#   CVE-2021-3493 and CVE-2023-0386. For the release agent it comes later, where there is one (CVE-2022-0492): only who
#   tries what the kernel would refuse meets the rule.
# custom:
#   id: CFI005
#   severity: critical
#   action: override
#   technique: T1068
#   seen: |
#     The operation fails with EPERM. eCryptfs opens the files below it for writing on behalf of readers, which is
#     refused to those who may not. Who reads events of fanotify after giving up its rights, where these come with
#     descriptors for writing, meets it. So does, now and then, who opens a file while its owner takes the right to from
#     it: the mode is looked at again behind the kernel's own check, and an owner who does so all the time can have
#     others refused.
rules contains {"id": "CFI005", "action": "override", "scope": "event"} if {
	input.event.kind == "cfi.act"
	input.event.act in {
		"file_capability",
		"setuid_root",
		"open_for_writing",
		"release_agent",
		"device_node",
		"module",
		"mount",
	}
}
