"""Datasets, disjoint splits, transforms and the cache that evaluators read."""
