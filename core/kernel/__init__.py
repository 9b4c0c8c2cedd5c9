"""The kernel side: BTF, source assembly, the loader child, attaching, maps and the ring buffer."""
