"""The sensors that ship with KRIe. Each is an ordinary plugin: it uses only what `krie` makes public."""
