"""The workers that can be rehearsed, beside this project's own."""
