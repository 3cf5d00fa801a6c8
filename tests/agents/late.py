"""A module that an agent imports in its entrypoint: it looks at the environment once."""

import os

SEEN = dict(os.environ)
