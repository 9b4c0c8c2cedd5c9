"""A path as `krie_path()` in `bpf/file.h` writes it into a record."""

from __future__ import annotations

from .wire import text_of


def path_text(components: bytes, length: int, *, truncated: bool, deleted: bool) -> tuple[str, bool]:
    """The path, and whether it is whole. `length`: bytes used of `components`, the last one of which comes first."""
    names = components[: min(length, len(components))].split(b"\0")[:-1]
    path = "/" + "/".join(text_of(name) for name in reversed(names))
    if deleted:
        path += " (deleted)"
    whole = bool(names) and not truncated
    return (path, True) if whole else (f"...{path}", False)
