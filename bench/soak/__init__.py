"""A soak: a stream of users, deploys and faults at random, and a judgement by what users saw."""
