"""`python -m tools.docs [--man FOLDER]`: renew the pages; make the manual pages."""

import sys
from pathlib import Path

from . import everything, pages

if sys.argv[1:2] == ["--man"]:
    from .man import write

    write(Path(sys.argv[2]), *everything())
else:
    for page, text in pages().items():
        page.write_text(text)
