"""Where trials run: actors of Tune, workers of Ray Train, or a simulated clock."""
