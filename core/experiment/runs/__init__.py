"""What makes a run a run: flags, folders, checkpoints, resuming, seeds, signals, processes."""
