# METADATA
# title: The agent's own events
# description: |
#   What makes the agent see less than it should.
package krie.agent

# METADATA
# title: Records or journal lines were lost
# description: |
#   Something happened that the journal will never tell.
# custom:
#   id: AGENT001
#   severity: high
#   action: log
#   technique: T1562.006
#   seen: |
#     Nothing. A burst that the ring buffer or the disk cannot take causes it: raise agent.ring_mib or journal.queue.
rules contains {"id": "AGENT001", "action": "log"} if input.event.kind == "krie.loss"

# METADATA
# title: A probe is not alive
# description: |
#   It could not be attached, or its canary did not arrive; the rules that need it are blind.
# custom:
#   id: AGENT002
#   severity: high
#   action: log
#   technique: T1562.001
#   seen: |
#     Nothing. A kernel that lacks what the probe needs causes it at every start; later in a run it means that
#     something was switched off.
rules contains {"id": "AGENT002", "action": "log"} if {
	input.event.kind == "krie.probe"
	input.event.state in {"silent", "missing"}
}

# METADATA
# title: A plugin failed
# description: |
#   One of its hooks raised, or the plugin was left out.
# custom:
#   id: AGENT003
#   severity: medium
#   action: log
#   technique: ""
#   seen: |
#     Nothing. A fault in a plugin causes it; the agent's log has the traceback.
rules contains {"id": "AGENT003", "action": "log"} if input.event.kind == "krie.plugin"

# METADATA
# title: A changed policy was refused
# description: |
#   The previous policy stays in force.
# custom:
#   id: AGENT004
#   severity: medium
#   action: log
#   technique: ""
#   seen: |
#     Nothing. Whoever edits policies meets it by a typing error.
rules contains {"id": "AGENT004", "action": "log"} if {
	input.event.kind == "krie.policy"
	input.event.state == "refused"
}

# METADATA
# title: Somebody tried to harm the agent
# description: |
#   To signal, trace, limit, slow or freeze it, to change its links, files or memory, or to switch the kernel's probes
#   off.
# custom:
#   id: AGENT005
#   severity: critical
#   action: log
#   technique: T1562.001
#   seen: |
#     Who tried it gets an error. An administrator who stops the agent by kill meets it: use systemd, or Ctrl-C.
rules contains {"id": "AGENT005", "action": "log"} if {
	input.event.kind == "krie.guarded"
	not _asked_for_a_descriptor
	input.event.attempt != "files_frozen"
}

# METADATA
# title: Somebody asked for a descriptor of the agent's BPF objects
# description: |
#   By number, or by a pin. Tools that list all BPF objects do so; so does an attacker before anything else.
# custom:
#   id: AGENT041
#   severity: low
#   action: log
#   technique: T1518.001
#   seen: |
#     The agent's programs, maps and links are missing in lists such as that of bpftool; `krie status --json` has them.
rules contains {"id": "AGENT041", "action": "log"} if {
	input.event.kind == "krie.guarded"
	_asked_for_a_descriptor
}

# METADATA
# title: Somebody froze the file system of the agent's files
# description: |
#   By FIFREEZE, as backups and snapshots of machines do for moments. While it lasts, nothing is written to the journal,
#   and rules of the user tier may wait.
# custom:
#   id: AGENT043
#   severity: medium
#   action: log
#   technique: T1562.001
#   seen: |
#     Nothing.
rules contains {"id": "AGENT043", "action": "log"} if {
	input.event.kind == "krie.guarded"
	input.event.attempt == "files_frozen"
}

# METADATA
# title: Recurring work of the agent failed
# description: |
#   It goes on, and tries again.
# custom:
#   id: AGENT042
#   severity: high
#   action: log
#   technique: T1562.001
#   seen: |
#     Nothing. Limits that are too low cause it, and so does who lowers them.
rules contains {"id": "AGENT042", "action": "log"} if input.event.kind == "krie.trouble"

# METADATA
# title: A poisoned process keeps trying
# description: |
#   It was refused a guarded operation.
# custom:
#   id: AGENT006
#   severity: medium
#   action: log
#   technique: ""
#   seen: |
#     The operation fails; rules of other events said why the process is poisoned, and `krie status` does.
rules contains {"id": "AGENT006", "action": "log"} if input.event.kind == "krie.contained"

# METADATA
# title: A rule killed or poisoned too many and only refuses now
# description: |
#   Its circuit breaker tripped. Either the rule is wrong, or the machine is under attack by many users.
# custom:
#   id: AGENT007
#   severity: high
#   action: log
#   technique: ""
#   seen: |
#     Whom the rule would have killed lives on, until `krie clear --rule ID`; what it refuses still fails.
rules contains {"id": "AGENT007", "action": "log"} if {
	input.event.kind == "krie.breaker"
	input.event.state == "tripped"
}

# METADATA
# title: Monitoring was interrupted
# description: |
#   The agent before this one was killed, or crashed, or the machine lost its power; or this one was stopped or frozen.
# custom:
#   id: AGENT008
#   severity: high
#   action: log
#   technique: T1562.001
#   seen: |
#     Nothing. A power cut or an administrator's kill -9 causes it, too.
rules contains {"id": "AGENT008", "action": "log"} if input.event.kind == "krie.gap"

# METADATA
# title: What was decided was taken back
# description: |
#   Poison and refusals were cleared by hand, or poison was taken back to make room for another user's.
# custom:
#   id: AGENT009
#   severity: low
#   action: log
#   technique: ""
#   seen: |
#     Nothing but what the administrator wanted, or what thousands of poisoned processes brought about: the
#     processes are free again.
rules contains {"id": "AGENT009", "action": "log"} if input.event.kind == "krie.cleared"

# METADATA
# title: The kernel skipped runs of a probe
# description: |
#   The kernel did not run its program, since the CPU was in the middle of another one or of a map's change.
# custom:
#   id: AGENT010
#   severity: medium
#   action: log
#   technique: T1562.001
#   seen: |
#     Nothing. Other users of BPF on the same machine cause it by chance; many at once are somebody's intent.
rules contains {"id": "AGENT010", "action": "log"} if input.event.kind == "krie.missed"

# METADATA
# title: A user did more of something than is reported
# description: |
#   Different attempts of one kind exceeded the user's budget. The kernel's part of the policy decided each of them, the
#   rest of the policy did not. Where an enforced rule of that rest refuses or kills, the attempt was refused with
#   EAGAIN, if its probe can refuse; if not, the flood may hide what the same user did besides.
# custom:
#   id: AGENT011
#   severity: high
#   action: log
#   technique: T1499
#   seen: |
#     Nothing, or EAGAIN. A program that does thousands of different things in a second causes it; raise
#     agent.user_burst for it.
rules contains {"id": "AGENT011", "action": "log"} if {
	input.event.kind == "krie.held"
	input.event.over > 0
}

# METADATA
# title: A policy could not decide in time
# description: |
#   What evaluates it gave no answer, or was killed or stopped. `policy.on_error` decided, or a new process did.
# custom:
#   id: AGENT014
#   severity: high
#   action: log
#   technique: T1562.001
#   seen: |
#     Nothing. A rule that calls itself or takes too long causes it, and a machine that is far too busy.
rules contains {"id": "AGENT014", "action": "log"} if {
	input.event.kind == "krie.policy"
	input.event.state == "failed"
}

# METADATA
# title: The journal's file was taken away or changed
# description: |
#   Somebody else moved, removed, replaced, emptied or wrote it. A new one is in its place; lines that went elsewhere
#   meanwhile are counted.
# custom:
#   id: AGENT021
#   severity: high
#   action: log
#   technique: T1070.002
#   seen: |
#     Nothing. logrotate, where somebody had it rotate this journal, causes it each time: KRIe rotates by itself.
rules contains {"id": "AGENT021", "action": "log"} if input.event.kind == "krie.journal"

# METADATA
# title: A service that the agent is to use does not work
# description: |
#   Where its policy comes from, or where its decision logs and status go; or decisions were dropped on the way there.
#   What is decided waits for none of them, and the journal is complete.
# custom:
#   id: AGENT031
#   severity: medium
#   action: log
#   technique: ""
#   seen: |
#     Each time that the network or the service is down; told once, and not again before it works.
rules contains {"id": "AGENT031", "action": "log"} if {
	input.event.kind == "krie.service"
	input.event.state in {"trouble", "dropped"}
}

_asked_for_a_descriptor if input.event.attempt in {"map_opened", "program_opened", "link_opened"}
