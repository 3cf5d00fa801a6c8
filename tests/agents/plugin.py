"""A plugin: it looks at the environment when it is imported, and when it is used."""

import os

from livekit.agents import Plugin

SEEN_AT_IMPORT = dict(os.environ)


class ForeignPlugin(Plugin):
    def __init__(self) -> None:
        super().__init__(__name__, "1.0.0", __package__ or __name__)


Plugin.register_plugin(ForeignPlugin())


def seen() -> dict[str, str]:
    return dict(os.environ)
