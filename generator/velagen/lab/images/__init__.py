"""Container images assembled from packages, for machines that reach no registry."""

from velagen.lab.images.assemble import archive_path, check_disk, current, identify, image, images_dir, prune, why_not
from velagen.lab.images.dockerfile import write_context
from velagen.lab.images.recipe import Recipe, Recipes, read_recipes, recipes

__all__ = [
    "Recipe",
    "Recipes",
    "archive_path",
    "check_disk",
    "current",
    "identify",
    "image",
    "images_dir",
    "prune",
    "read_recipes",
    "recipes",
    "why_not",
    "write_context",
]
