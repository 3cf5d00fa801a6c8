"""Real LiveKit servers, workers and users on loopback, and nothing left behind.

The tests, the rehearsal and the benchmarks stand on this. `Testbed` starts everything and ends
it; what it starts is real, except `FakeLiveKit` and `FakeOpenAI`, which are for faults and for
models that cost nothing.
"""

from .bed import Testbed
from .errors import NotInstalledError, StartError
from .processes import Process, Processes
from .user import User
from .waiting import until

__all__ = ["NotInstalledError", "Process", "Processes", "StartError", "Testbed", "User", "until"]
