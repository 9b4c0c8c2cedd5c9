"""BPF C of the core: what every sensor's code is compiled together with."""
