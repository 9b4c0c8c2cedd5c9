# METADATA
# title: The machine's clock
# description: |
#   Who sets it: the sample, to be replaced. See the plugin clock for what its probe sees and does not see.
package krie.clock

# METADATA
# title: A program without a name sets the clock
# description: |
#   With the clock set back, expired certificates are valid again and logs tell another order. The time daemons of this
#   machine are named in data.executables.
# custom:
#   id: CLOCK001
#   severity: high
#   action: override
#   technique: T1070
#   seen: |
#     Setting the clock fails with EPERM. An administrator who calls date -s meets it.
rules contains {"id": "CLOCK001", "action": "override", "errno": 1} if {
	input.event.kind == "clock.settime"
	input.event.what in {"time", "both"}
	input.process.program == ""
}
