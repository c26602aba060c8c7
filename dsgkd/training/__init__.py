"""One run: the loop, its evaluation and checkpoints, alone or under Ray Train."""
