"""What the build id was computed from, and whether that has changed since."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from build_aware.identity.files import Stat, content_id, counted
from build_aware.identity.project import Project


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The files that count, as they were when they were hashed.

    Attributes:
        id: the content id of these files.
        project: whose files.
        files: the counted files, by their paths from the root.
        took_s: seconds of CPU that it took to find and hash them. A busy machine makes no folder
            slow, so this is not the time on the clock.
    """

    id: str
    project: Project
    files: Mapping[str, Stat]
    took_s: float

    @property
    def size(self) -> int:
        """Bytes of all counted files."""
        return sum(found.size for found in self.files.values())

    def changed(self) -> tuple[str, ...]:
        """The files that have changed, come or gone since; it reads folders, but no file."""
        now = counted(self.project, strict=False)
        return tuple(
            name for name in sorted({*self.files, *now}) if self.files.get(name) != now.get(name)
        )


def take(project: Project) -> Snapshot:
    """Find and hash the files that count.

    Raises:
        BuildError: there can be no id; see `counted` and `content_id`.
    """
    start_s = time.thread_time()
    files = counted(project)
    return Snapshot(content_id(project.root, files), project, files, time.thread_time() - start_s)
