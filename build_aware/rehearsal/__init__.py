"""A rehearsal of a rolling deploy: real workers, real users, a verdict and a picture.

`python agent.py rehearse` runs it. It is no part of the agent, and not shipped with it.
"""
