"""The running agent: what it loads, the bus, its health, its journal, and how others ask it."""
