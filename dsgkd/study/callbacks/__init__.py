"""What follows a study's trials: ledger, progress on a terminal, trackers, notifications."""
