"""`python -m tools.docs`: renew the pages."""

from . import pages

for page, text in pages().items():
    page.write_text(text)
