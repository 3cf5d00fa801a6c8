"""What runs in a job process: its claim to the room, its signals, its end."""
