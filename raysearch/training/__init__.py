"""Training of supernets: the recipe's numbers, one process's share of the work, checkpoints."""
