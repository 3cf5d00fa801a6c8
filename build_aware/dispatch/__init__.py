"""A job offer: what it asks for, and whether this worker takes it."""
