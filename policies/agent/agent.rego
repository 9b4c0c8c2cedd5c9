# METADATA
# title: The agent's own events
# description: What makes the agent see less than it should.
package krie.agent

# METADATA
# title: Records or journal lines were lost
# description: Something happened that the journal will never tell.
# custom: {id: AGENT001, severity: high, action: log}
rules contains {"id": "AGENT001", "action": "log"} if input.event.kind == "krie.loss"

# METADATA
# title: A probe is not alive
# description: It could not be attached, or its canary did not arrive; the rules that need it are blind.
# custom: {id: AGENT002, severity: high, action: log}
rules contains {"id": "AGENT002", "action": "log"} if {
	input.event.kind == "krie.probe"
	input.event.state in {"silent", "missing"}
}

# METADATA
# title: A plugin failed
# description: One of its hooks raised, or the plugin was left out.
# custom: {id: AGENT003, severity: medium, action: log}
rules contains {"id": "AGENT003", "action": "log"} if input.event.kind == "krie.plugin"

# METADATA
# title: A changed policy was refused
# description: The one before stays in force.
# custom: {id: AGENT004, severity: medium, action: log}
rules contains {"id": "AGENT004", "action": "log"} if {
	input.event.kind == "krie.policy"
	input.event.state == "refused"
}

# METADATA
# title: Somebody tried to harm the agent
# description: To signal or trace it, to change its links or maps, or to switch the kernel's probes off.
# custom: {id: AGENT005, severity: critical, action: log}
rules contains {"id": "AGENT005", "action": "log"} if input.event.kind == "krie.guarded"

# METADATA
# title: A poisoned process goes on trying
# description: It was refused a guarded operation.
# custom: {id: AGENT006, severity: medium, action: log}
rules contains {"id": "AGENT006", "action": "log"} if input.event.kind == "krie.contained"

# METADATA
# title: A rule hit too many processes and only observes now
# description: Its circuit breaker tripped. Either the rule is wrong, or the machine is under attack by many processes.
# custom: {id: AGENT007, severity: high, action: log}
rules contains {"id": "AGENT007", "action": "log"} if {
	input.event.kind == "krie.breaker"
	input.event.state == "tripped"
}

# METADATA
# title: Nobody watched for a time
# description: The agent before this one was killed, or crashed, or the machine lost its power.
# custom: {id: AGENT008, severity: high, action: log}
rules contains {"id": "AGENT008", "action": "log"} if input.event.kind == "krie.gap"

# METADATA
# title: An administrator took back what was decided
# description: Poison and refusals were cleared by hand.
# custom: {id: AGENT009, severity: low, action: log}
rules contains {"id": "AGENT009", "action": "log"} if input.event.kind == "krie.cleared"
