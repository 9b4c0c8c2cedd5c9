"""What an entry point names becomes the plugin of one agent, if it was written for this KRIe and its hooks are some."""

from __future__ import annotations

import difflib
from importlib.metadata import EntryPoint

from ..errors import PluginError
from . import hookspecs
from .installed import GROUP

_API_OF_MODULES = 1
"""What a module (or an object of one) is written for that does not say it: the API that had no way to."""


def made(entry: EntryPoint) -> object:
    """Import what the entry point names. A class is called: each agent has an instance of its own.

    Raises `PluginError` for what is written for another API than this KRIe's: nothing of it was called.
    """
    found = entry.load()
    is_class = isinstance(found, type)
    written_for = getattr(found, "api", None)
    if not is_class and type(written_for) is not int:  # a module may have something else of that name
        written_for = _API_OF_MODULES
    if type(written_for) is not int:
        problem = f"{entry.value} does not say which plugin API it is written for"
        raise PluginError(entry.name, f"{problem}: write `api = {hookspecs.API_VERSION}` into the class, as a number")
    if written_for != hookspecs.API_VERSION:
        problem = f"is written for plugin API {written_for}, this KRIe has {hookspecs.API_VERSION}"
        fix = f"install a KRIe with API {written_for}, or a version of the plugin for {hookspecs.API_VERSION}"
        raise PluginError(entry.name, f"{problem}: {fix}")
    return found() if is_class else found


def check_hooks(entry: EntryPoint, plugin: object) -> None:
    """Refuse a plugin without hooks, or with one that would never be called. Raises `PluginError`."""
    hooks = [name for name in dir(plugin) if name.startswith("krie_") and callable(getattr(plugin, name))]
    for hook in hooks:
        if not hasattr(hookspecs, hook):
            near = difflib.get_close_matches(hook, [each for each in vars(hookspecs) if each.startswith("krie_")], 1)
            problem = f"has no such hook: {hook}" + (f"; did you mean {near[0]}?" if near else "")
            raise PluginError(entry.name, problem)
        if not hasattr(getattr(plugin, hook), f"{GROUP}_impl"):
            raise PluginError(entry.name, f"{hook} would never be called; write @krie.hookimpl above it")
    if not hooks:
        fix = "its entry point must name the class with them: package.module:Class"
        raise PluginError(entry.name, f"{entry.value} has no hooks; {fix}")
    if type(plugin).__hash__ is None:
        raise PluginError(entry.name, f"{entry.value} cannot be hashed; if it is a dataclass, write eq=False")
