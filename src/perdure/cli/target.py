"""Finding the app that ``module:app`` names."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

from ..app import App
from ..errors import ConfigError


def load_app(target: str) -> App:
    """Import the module (from the current folder, too) and take the app from it.

    ``module`` alone means ``module:app``.

    Raises:
        ConfigError: there is no such module or attribute, or it is no `App`. An exception
            that the module itself raises is left as it is.
    """
    module_name, _, attribute = target.partition(":")
    attribute = attribute or "app"
    if module_name.endswith(".py") or "/" in module_name:
        importable = module_name.removesuffix(".py").strip("./").replace("/", ".")
        raise ConfigError(
            f"{module_name!r} is a file; name the module instead: `perdure run {importable}:{attribute}`"
        )
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        # A missing import inside the module is the module's own error.
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise
        raise ConfigError(
            f"there is no module {module_name!r} here; name it as Python imports it, from {Path.cwd()}"
        ) from None
    found: object = module
    for name in attribute.split("."):
        found = getattr(found, name, None)
        if found is None:
            apps = [key for key, value in vars(module).items() if isinstance(value, App)]
            hint = f"; it has {', '.join(apps)}" if apps else ""
            raise ConfigError(f"{module_name} has no {attribute!r}{hint}")
    if not isinstance(found, App):
        raise ConfigError(
            f"{module_name}:{attribute} is a {type(found).__name__}, not a perdure App; "
            f"run an application that mounts one with uvicorn"
        )
    return found
