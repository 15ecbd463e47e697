"""What follows from runs on disk: comparisons, cost, verdicts. Needs no torch, device or network."""
