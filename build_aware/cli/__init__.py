"""The commands, and what runs a worker, reloads it, and talks to an agent in a terminal."""
