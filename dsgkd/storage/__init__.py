"""How anything is written and read back: whole files, checkpoints, object storage."""
