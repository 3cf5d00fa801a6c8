"""What the rollout costs users, held against what is promised of it."""
