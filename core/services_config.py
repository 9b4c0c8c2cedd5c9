"""The sections of krie.toml for OPA's services: `[bundle]`, `[decision_logs]` and `[status]`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal, Self

from pydantic import Field

from .config_section import Section
from .service import Service, is_local, problem_of

Algorithm = Literal[
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "HS256", "HS384", "HS512"
]
"""Those of `krie.policy.signature`, without importing what makes and checks them."""


class PinnedKey(Section):
    """`[bundle.keys.<id>]`"""

    file: str = Field(description="the public key as PEM, or the secret of an HS algorithm")
    algorithm: Algorithm = Field("RS256", description="what it signs by, whatever a signature says of itself")
    scope: str = Field("", description="the scope that signatures must name; empty: none")


class ServiceFiles(Section):
    """What every section of a service has."""

    token: str = Field("", description="file of the bearer token; empty: none is sent")
    ca: str = Field("", description="file of the authorities that are trusted, as PEM; empty: this machine's")
    certificate: str = Field("", description="file of the agent's own certificate, as PEM; empty: none")
    key: str = Field("", description="file of its private key; empty: it is in the same file")

    def service(self, url: str) -> Service:
        """Whom to ask, and with what."""
        return Service(url, self.token, self.ca, self.certificate, self.key)

    def below(self, folder: Path) -> Self:
        """The same, with relative files below the folder."""
        names = ("token", "ca", "certificate", "key")
        return self.model_copy(update={name: str(folder / each) for name in names if (each := getattr(self, name))})


class BundleConfig(ServiceFiles):
    """`[bundle]`: how the bundle of `policy.bundle` is fetched and verified."""

    keys: dict[str, PinnedKey] = Field(default_factory=dict, description="the keys that bundles are verified with")
    min_delay_s: int = Field(60, ge=1, le=86400, description="shortest time between two polls, s")
    max_delay_s: int = Field(120, ge=1, le=86400, description="longest time between two polls, and after failures, s")
    long_poll_s: int = Field(0, ge=0, le=3600, description="how long the server may hold a poll open, s; 0: not at all")
    timeout_s: int = Field(60, ge=1, le=3600, description="timeout for one download, in seconds")

    def below(self, folder: Path) -> Self:
        """The same, with relative files below the folder."""
        keys = {name: each.model_copy(update={"file": str(folder / each.file)}) for name, each in self.keys.items()}
        return super().below(folder).model_copy(update={"keys": keys})


class UploadConfig(ServiceFiles):
    """What `[decision_logs]` and `[status]` have in common."""

    url: str = Field("", description="address of the service, to which the resource is added; empty: it is off")
    timeout_s: int = Field(30, ge=1, le=3600, description="timeout for one upload, in seconds")


class DecisionLogsConfig(UploadConfig):
    """`[decision_logs]`: decisions, in OPA's format, for a decision log service."""

    resource: str = Field("/logs", pattern="^/", description="path of the service that takes them")
    min_delay_s: int = Field(5, ge=1, le=86400, description="shortest time between two uploads, s")
    max_delay_s: int = Field(60, ge=1, le=86400, description="longest time between two uploads, and after failures, s")
    upload_kib: int = Field(64, ge=4, le=16384, description="size of one upload, compressed, KiB")
    buffer_mib: int = Field(
        64, ge=1, le=1 << 16, description="most that waits on disk, MiB; then the oldest are dropped, and counted"
    )


class StatusConfig(UploadConfig):
    """`[status]`: how bundle and decision logs stand, for a status service."""

    resource: str = Field("/status", pattern="^/", description="path of the service that takes it")
    max_delay_s: int = Field(120, ge=1, le=86400, description="longest time between two reports, s")


def is_url(bundle: str) -> bool:
    """Whether `policy.bundle` is fetched, and not a file of this machine."""
    return "://" in bundle


def problems(
    bundle: str, fetched: BundleConfig, logs: DecisionLogsConfig, status: StatusConfig
) -> Iterator[tuple[str, str]]:
    """What is wrong with keys that depend on each other: the place, and the problem."""
    if is_url(bundle):
        if problem := problem_of(fetched.service(bundle)):
            yield "policy.bundle", problem
        if not fetched.keys:
            yield "bundle.keys", 'a bundle from a URL has to be signed; pin the key: [bundle.keys.NAME] file = "..."'
    for section, files in (("bundle", fetched), ("decision_logs", logs), ("status", status)):
        if files.key and not files.certificate:
            yield (
                f"{section}.key",
                "is the private key of a certificate, but no certificate is set"
                + ("; keys that verify bundles are [bundle.keys.NAME]" if section == "bundle" else ""),
            )
    for place, each in (("bundle", fetched), ("decision_logs", logs)):
        if each.min_delay_s > each.max_delay_s:
            yield f"{place}.min_delay_s", f"must not be larger than max_delay_s, {each.max_delay_s}"
    for place, upload in (("decision_logs.url", logs), ("status.url", status)):
        if upload.url and (problem := problem_of(upload.service(upload.url))):
            yield place, problem
        elif upload.url.startswith("http:") and not is_local(upload.url):
            yield place, "would tell others on the way what happens on this machine; begin it with https://"
