"""Names for ``timm.create_model``, registered when this module is imported: those of every family of the package that has some.

``raysearch_autoformer_tiny``, ``_small`` and ``_base`` are published subnets, ``raysearch_autoformer`` one of any size.
"""

import importlib

from raysearch.spaces import family
from raysearch.spaces.family import BUILT_IN

for name in BUILT_IN:
    if (names := family(name).timm) is not None:
        importlib.import_module(names.module)
