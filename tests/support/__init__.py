"""What only these tests need, beside the test bed: copies of the agent, and strange metadata."""
