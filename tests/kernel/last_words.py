"""What victims say whom an agent may kill meanwhile."""

import subprocess

from krie.testing.victims import Victims


def last_words(victims: Victims, code: str, *arguments: str) -> str:
    """What it said, however it ended."""
    try:
        return victims.run(code, *arguments).stdout
    except subprocess.CalledProcessError as error:
        assert isinstance(error.stdout, str)
        return error.stdout
