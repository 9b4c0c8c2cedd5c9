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
