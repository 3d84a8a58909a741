"""Training of supernets: the step, its optimiser and schedule, checkpoints."""
