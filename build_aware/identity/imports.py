"""What this process has imported, and what of that is not the team's own code."""

from __future__ import annotations

import importlib.metadata
import json
import os
import sys
import sysconfig
from pathlib import Path
from urllib.parse import unquote, urlsplit


def imported() -> dict[str, str | None]:
    """The modules of this process by name, and the file of each, if it has one."""
    files = {name: getattr(module, "__file__", None) for name, module in list(sys.modules.items())}
    return {name: file if isinstance(file, str) else None for name, file in files.items()}


def installed() -> frozenset[str]:
    """The folders of Python, of the virtual environment, and of editable installations."""
    folders = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    if sys.prefix != sys.base_prefix:
        folders.add(sys.prefix)
    # This package may be used from a checkout, without being installed.
    folders.add(str(Path(__file__).parents[1]))
    for distribution in importlib.metadata.distributions():
        folders |= editable(distribution.read_text("direct_url.json"))
    return frozenset(os.path.realpath(folder) for folder in folders)


def editable(direct_url: str | None) -> set[str]:
    """The folder of a distribution that is installed as editable; none of any other.

    Args:
        direct_url: its `direct_url.json` (PEP 610), where installers say where it comes from.
    """
    try:
        origin = json.loads(direct_url or "{}")
        if origin["dir_info"]["editable"] is not True:
            return set()
        return {unquote(urlsplit(origin["url"]).path)}
    except (KeyError, TypeError, ValueError):
        return set()
