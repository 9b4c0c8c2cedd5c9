"""Where the command starts, before anything is imported that its environment or its working folder could replace."""

import os
import sys


def isolate(module: str) -> None:
    """Execute this module in this process's place, with `-I`, unless Python runs so already.

    Then it looks for modules where it is installed only: not in the working folder, nor where PYTHONPATH, PYTHONHOME or
    a user's own site-packages say. To be called before other imports. What Python itself imports at its start is beyond
    this: `tools/setup` writes `-I` into the command's first line, too.
    """
    if not sys.flags.isolated:
        os.execv(sys.executable, [sys.executable, "-I", "-m", module, *sys.argv[1:]])  # noqa: S606


def main() -> None:
    """Entry point of the `krie` command."""
    isolate("krie.start")
    from .cli.main import main as command  # noqa: PLC0415 - see above

    command()


if __name__ == "__main__":
    main()
