"""Named, typed configurations: a :class:`Recipe` is one search, whole."""

from raysearch.recipes.autoformer import RECIPES
from raysearch.recipes.elastic_vit import SETTLED, of_pretrained
from raysearch.recipes.recipe import SETTINGS_OF, Recipe, flat_settings

__all__ = ["RECIPES", "SETTINGS_OF", "SETTLED", "Recipe", "flat_settings", "of_pretrained"]
