"""Datasets, disjoint splits, transforms and the cache that evaluators read.

``load_splits(config)`` gives train, search, finalist and test images; ``TrainLoader`` makes training batches of the first,
``write_cache`` and ``open_cache`` hold the others decoded in one memory-mapped file.
"""

from raysearch.tasks.images.cache import CachedImages, CacheInfo, open_cache, write_cache
from raysearch.tasks.images.classification import ImageClassification
from raysearch.tasks.images.config import DIGITS, FASHION_MNIST, IMAGENET, IMAGES, DataConfig
from raysearch.tasks.images.datasets import load_splits
from raysearch.tasks.images.images import ArrayImages, EncodedImages, ImageSet
from raysearch.tasks.images.loader import TrainLoader
from raysearch.tasks.images.reading import read_image
from raysearch.tasks.images.transforms import AugmentConfig, Normalisation, evaluation_array
from raysearch.tasks.task import Splits

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
    "EncodedImages",
    "ImageClassification",
    "ImageSet",
    "Normalisation",
    "Splits",
    "TrainLoader",
    "evaluation_array",
    "load_splits",
    "open_cache",
    "read_image",
    "write_cache",
]
