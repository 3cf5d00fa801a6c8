"""What an agent tells its test: one line for each event, in the file that `JOURNAL` names."""

import json
import os
import time
from pathlib import Path
from typing import Any


def note(event: str, **facts: Any) -> None:
    line = json.dumps({"event": event, "at": time.time(), "pid": os.getpid()} | facts)
    with Path(os.environ["JOURNAL"]).open("a") as file:
        file.write(f"{line}\n")
