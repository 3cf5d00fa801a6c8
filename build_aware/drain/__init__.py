"""From the stop signal to the exit: signals, one clock, exit codes."""
