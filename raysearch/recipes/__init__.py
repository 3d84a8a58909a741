"""Named, typed configurations: a :class:`Recipe` is one search, whole."""

from raysearch.recipes.autoformer import RECIPES
from raysearch.recipes.recipe import SETTINGS_OF, Recipe, flat_settings

__all__ = ["RECIPES", "SETTINGS_OF", "Recipe", "flat_settings"]
