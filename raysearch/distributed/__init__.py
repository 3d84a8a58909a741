"""All that imports ray: the trainer, the evaluators and their pool, the searcher."""
