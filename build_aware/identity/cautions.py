"""What an operator should hear about the build id."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from build_aware.identity.project import TABLE
from build_aware.identity.snapshot import Snapshot

LARGE_BYTES: Final = 50_000_000
"""The operator hears of counted files that together are larger."""

SLOW_S: Final = 0.2
"""The operator hears of a build id that takes more seconds of CPU."""

EXPENSIVE: Final = (
    "the build id is computed from many or large files at each start; exclude what the agent "
    f"does not need in .dockerignore, or list what it needs under [{TABLE}] files in pyproject.toml"
)

OUTSIDE: Final = (
    "modules are imported from files that do not count for the build id, so changing them makes "
    f"no new build; list everything that counts under [{TABLE}] files in pyproject.toml"
)

_PACKAGES: Final = frozenset({"site-packages", "dist-packages"})
"""The names of the folders into which Python packages are installed."""


@dataclass(frozen=True, slots=True)
class Caution:
    """A warning for the log.

    Attributes:
        message: what is wrong and what to do, always in the same words.
        fields: what it is about, for the `extra` of the record.
    """

    message: str
    fields: Mapping[str, Any]


def expensive(snapshot: Snapshot) -> Caution | None:
    """A warning if the build id is expensive to compute; it names the folder to look at."""
    if snapshot.size <= LARGE_BYTES and snapshot.took_s <= SLOW_S:
        return None
    folder, size = largest_folder(snapshot)
    return Caution(
        EXPENSIVE,
        {
            "files": len(snapshot.files),
            "size_mb": round(snapshot.size / 1e6, 1),
            "took_s": round(snapshot.took_s, 3),
            "largest_folder": folder,
            "largest_folder_mb": round(size / 1e6, 1),
        },
    )


def largest_folder(snapshot: Snapshot) -> tuple[str, int]:
    """The folder to look at first, and the bytes of the counted files in it.

    That is the deepest folder that has more than half of all bytes, else the largest one. Files
    that are in no folder are in `.`.
    """
    sizes: dict[str, int] = defaultdict(int)
    for name, found in snapshot.files.items():
        folders = name.split("/")[:-1] or ["."]
        for end in range(1, len(folders) + 1):
            sizes["/".join(folders[:end])] += found.size
    if not sizes:
        return ".", 0
    most = [folder for folder, size in sizes.items() if size * 2 > snapshot.size]
    largest = max(sizes, key=lambda folder: sizes[folder])
    folder = max(most, key=lambda folder: folder.count("/"), default=largest)
    return folder, sizes[folder]


def imported_from_outside(
    modules: Mapping[str, str | None], snapshot: Snapshot, installed: Collection[str]
) -> Caution | None:
    """A warning if the team's own code is imported from files that do not count.

    Args:
        modules: the imported modules by name, and the file of each, if it has one.
        snapshot: the files that count.
        installed: the folders of what is not the team's own; see `imports.installed`.
    """
    root = os.path.realpath(snapshot.project.root)
    # The project itself may be installed, as editable: it is the team's all the same.
    folders = (os.path.join(folder, "") for folder in installed)  # noqa: PTH118
    others = tuple(folder for folder in folders if not f"{root}/".startswith(folder))
    counts = {os.path.normpath(f"{root}/{name}") for name in snapshot.files}
    outside: dict[str, str] = {}
    for module, file in modules.items():
        if file is None or file.startswith(others) or not _PACKAGES.isdisjoint(Path(file).parts):
            continue
        path = os.path.realpath(file)  # Slow, so it comes last.
        if path not in counts and not path.startswith(others):
            outside.setdefault(module.partition(".")[0], path)
    if not outside:
        return None
    return Caution(OUTSIDE, {"modules": dict(sorted(outside.items()))})
