"""A service on the network: its address, and what is needed to talk to it. Values; nothing is asked here."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

_LOOPBACK = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class Service:
    """Where something is asked or told. Files are read for each request, so that renewed ones count."""

    url: str
    token: str = ""
    """File of the bearer token; empty: none is sent."""
    ca: str = ""
    """File of the authorities that are believed, as PEM; empty: those of this machine."""
    certificate: str = ""
    key: str = ""
    """Its private key; empty: it is in the certificate's file."""

    @property
    def shown(self) -> str:
        """For messages: without what signed URLs carry."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc}{parts.path}"


def problem_of(service: Service) -> str:
    """What is wrong with an address and what is to be sent there; empty where nothing is."""
    try:
        parts = urlsplit(service.url)
        parts.port  # noqa: B018 - raises for one that is not a number
    except ValueError as error:
        return f"is not a URL: {error}"
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return "must be a URL that begins with https://, or http:// for what needs no secrecy"
    if parts.username is not None or parts.password is not None:
        return "holds a password; put it into the file of a token"
    if parts.fragment or any(not each.isprintable() or each == " " for each in service.url):
        return "holds a fragment, a blank or a character that has no place in a URL"
    if parts.scheme == "http" and parts.hostname not in _LOOPBACK and (service.token or service.certificate):
        return "would send a token to another machine in the clear; begin it with https://"
    return ""


def is_local(url: str) -> bool:
    """Whether it leads to this machine, so that nobody between can read along."""
    return urlsplit(url).hostname in _LOOPBACK
