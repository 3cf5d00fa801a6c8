"""The worker's main process: LiveKit's agent server, and what stands around it."""
