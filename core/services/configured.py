"""Which services are configured, and how this host is called there."""

from __future__ import annotations

from collections.abc import Iterator

from ..config import Config
from ..processes.enrich import host
from ..service import Service
from ..services_config import is_url
from ..version import version


def services_of(config: Config) -> tuple[str, ...]:
    """Those that are configured."""
    wanted = {
        "bundle": is_url(config.policy.bundle),
        "decision_logs": bool(config.decision_logs.url),
        "status": bool(config.status.url),
    }
    return tuple(name for name, configured in wanted.items() if configured)


def labels() -> dict[str, str]:
    """By which a console tells this host from others."""
    about = host()
    return {
        "app": "krie",
        "id": str(about["machine_id"] or about["name"]),
        "host": str(about["name"]),
        "version": version(),
    }


def services(config: Config) -> Iterator[Service]:
    """Their addresses, and what is needed to talk to them."""
    for name in services_of(config):
        if name == "bundle":
            yield config.bundle.service(config.policy.bundle)
        elif name == "decision_logs":
            yield config.decision_logs.service(config.decision_logs.url)
        else:
            yield config.status.service(config.status.url)
