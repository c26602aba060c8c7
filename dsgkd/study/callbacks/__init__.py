"""What follows a study's trials: the ledger, the progress on a terminal, trackers, notifications."""
