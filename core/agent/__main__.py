"""`python -m krie.agent`: what `krie run` executes."""

import os

from ..start import isolate

isolate("krie.agent")

from .main import main  # noqa: E402 - nothing may be imported before

os._exit(main())  # threads that a plugin left behind are not waited for
