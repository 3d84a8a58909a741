"""Datasets, disjoint splits, transforms and the cache that evaluators read.

``load_splits(config, seed=...)`` gives train, search and test images; ``TrainLoader`` makes training batches of the first,
``write_cache`` and ``open_cache`` hold the others decoded in one memory-mapped file.
"""

from raysearch.data.cache import CachedImages, CacheInfo, open_cache, write_cache
from raysearch.data.config import DIGITS, FASHION_MNIST, IMAGENET, IMAGES, DataConfig
from raysearch.data.datasets import load_splits
from raysearch.data.images import ArrayImages, FolderImages, ImageSet
from raysearch.data.loader import TrainLoader
from raysearch.data.splits import Splits
from raysearch.data.transforms import AugmentConfig, Normalisation

__all__ = [
    "DIGITS",
    "FASHION_MNIST",
    "IMAGENET",
    "IMAGES",
    "ArrayImages",
    "AugmentConfig",
    "CacheInfo",
    "CachedImages",
    "DataConfig",
    "FolderImages",
    "ImageSet",
    "Normalisation",
    "Splits",
    "TrainLoader",
    "load_splits",
    "open_cache",
    "write_cache",
]
