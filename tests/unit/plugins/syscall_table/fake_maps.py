"""The plugin's maps, without a kernel."""


class Table:
    """A map that remembers."""

    def __init__(self) -> None:
        self.values: dict[bytes, bytes] = {}

    def set(self, key: bytes, value: bytes) -> None:
        self.values[key] = value

    def array(self) -> list[bytes]:
        return list(self.values.values())


def remembering() -> dict[str, Table]:
    """All of them, empty."""
    return {f"syscall_table_{name}": Table() for name in ("look", "handlers", "kernel", "pieces", "masks", "sites")}
