"""The entrypoint: `python agent.py console | dev | start | build | ...`.

Python resolves `import agent` to the package beside this file, and so do LiveKit's tools, which
import the module that is named like the file they are given.
"""

if __name__ == "__main__":
    import sys

    if sys.argv[1:2] in (["start"], ["dev"]):
        from build_aware.drain import starting

        starting.stop_means_exit()

    from agent.cli.main import main

    main()
