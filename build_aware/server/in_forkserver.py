"""The first module that a fork server imports: stop signals to the process group spare it.

Job processes are forked from it, and those that have no job yet are spared with it.
"""

from __future__ import annotations

from build_aware.job import signals

signals.ignore_all()
