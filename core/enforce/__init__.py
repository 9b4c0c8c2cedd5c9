"""What a decision does: verdicts in the kernel, kills, containment, and the agent's own defence."""
