"""What makes a LiveKit agent build-aware: it knows its build, takes its own jobs, and drains."""
