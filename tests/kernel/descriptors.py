"""What the kernel says of a process's open files."""

from contextlib import suppress
from pathlib import Path


def descriptions(tgid: int) -> dict[int, dict[str, str]]:
    """By descriptor, the fields of its fdinfo. What the process closed since they were listed is left out."""
    found = {}
    for each in Path(f"/proc/{tgid}/fdinfo").iterdir():
        with suppress(FileNotFoundError):
            lines = (line.partition(":") for line in each.read_text().splitlines())
            found[int(each.name)] = {name: value.strip() for name, _, value in lines}
    return found
