"""Rooms that wait for an agent, and how this worker finds and serves them."""
