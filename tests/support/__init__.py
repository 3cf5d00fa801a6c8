"""The test ground: a real LiveKit server, real workers, real users, and a fake LiveKit."""
