"""Names for ``timm.create_model``, registered when this module is imported: those of every family of the package that has some.

``raysearch_FAMILY`` takes a network of any size, by ``config="champion.json"``; published subnets have names of their own.
"""

import importlib

from raysearch.spaces import family
from raysearch.spaces.family import BUILT_IN

for name in BUILT_IN:
    if (names := family(name).timm) is not None:
        importlib.import_module(names.module)
