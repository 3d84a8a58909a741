"""Search algorithms: pure, deterministic, unaware of models and machines."""
