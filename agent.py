"""The entrypoint: `python agent.py console | dev | start | build | ...`.

Python resolves `import agent` to the package beside this file, and so do LiveKit's tools, which
import the module that is named like the file they are given.
"""

from pathlib import Path

from build_aware import cli

if __name__ == "__main__":
    cli.load_env(Path(__file__).with_name(".env.local"))
    cli.run_app("agent:server")
