"""Whose a package is: the folder's that defines it first, in the order of folders (KRIe's and the plugins' own first).

Whoever could add to a package from elsewhere could redefine what its rules call; whoever could add data there would put
a document in the place of its rules. Both silence rules without a word, so both are refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..errors import PolicyError
from ..events.wire import Json


class Packages:
    """Notes who defines which package. Raises `PolicyError` for a package that somebody else has."""

    def __init__(self) -> None:
        """Start with no package owned."""
        self._owners: dict[tuple[str, ...], tuple[str, str]] = {}

    def add(self, package: str, place: str, owner: str) -> None:
        """`package`: such as `data.krie.site`; `place`: FILE:LINE; `owner`: its folder, empty where there is none."""
        path = tuple(package.split("."))
        for other, (folder, where) in self._owners.items():
            shorter = min(len(path), len(other))
            if folder != owner and path[:shorter] == other[:shorter]:
                raise PolicyError(
                    f"{place}: package {_shown(path)} is or touches {_shown(other)} of {folder} ({where}): a package "
                    "has one folder; name yours otherwise, such as krie.site"
                )
        self._owners.setdefault(path, (owner, place))

    def rule(self, package: str, name: str, place: str) -> None:
        """A rule must not be where another package is."""
        path = (*package.split("."), name)
        for other, (_, where) in self._owners.items():
            if other[: len(path)] == path:
                raise PolicyError(f"{place}: rule {name} is where package {_shown(other)} ({where}) is; rename one")

    def data(self, data: Mapping[str, Json], places: Mapping[str, str]) -> None:
        """Documents must not be where packages are; `places`: files by key of `data`."""
        if "system" in data:
            raise PolicyError(
                f"{places.get('system', 'data')}: data.system is what OPA reads for itself, such as masks for decision "
                "logs, which KRIe takes from rules alone: write them in a package system.log, or drop the key"
            )
        for path, (_, where) in self._owners.items():
            if (key := path[1]) in data:
                raise PolicyError(
                    f"{places.get(key, 'data')}: data.{key} would take the place of package {_shown(path)} ({where}) "
                    "and of its rules; rename the key"
                )


def _shown(path: Iterable[str]) -> str:
    return ".".join(tuple(path)[1:])
