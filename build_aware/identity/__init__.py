"""Who am I: the build that this process runs."""
