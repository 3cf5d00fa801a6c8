"""Real LiveKit servers, workers and users on loopback, and nothing left behind.

The tests, the rehearsal and the benchmarks stand on this. `Testbed` starts everything and ends
it; what it starts is real, except `FakeLiveKit` and `FakeOpenAI`, which are for faults and for
models that cost nothing.
"""

from build_aware.testbed.bed import Testbed
from build_aware.testbed.errors import NotInstalledError, StartError
from build_aware.testbed.processes import Process, Processes
from build_aware.testbed.user import User
from build_aware.testbed.waiting import until

__all__ = ["NotInstalledError", "Process", "Processes", "StartError", "Testbed", "User", "until"]
