package krie.runtime_integrity

# METADATA
# title: An unnamed program filters the packets of a whole interface
# description: |
#   It attaches BPF to a packet socket, which sees what others receive: to listen, or to wait for a packet that opens a
#   backdoor. Servers' and ping's filters on sockets of their own are left out.
# custom:
#   id: SOCKET001
#   severity: medium
#   action: log
#   technique: T1205.002
#   seen: |
#     Nothing. tcpdump, DHCP clients and network managers cause it where data.executables does not name them.
rules contains {"id": "SOCKET001", "action": "log"} if {
	input.event.kind == "runtime_integrity.socket_filter"
	input.event.family == "packet"
	input.event.operation in {"attach_filter", "attach_bpf"}
	input.process.program == ""
}
