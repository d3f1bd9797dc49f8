# SPDX-License-Identifier: Apache-2.0
"""The images: one file each, which registers what goes into it."""

from __future__ import annotations

from builder.recipes.recipe import Recipe, recipe, recipes

__all__ = ["Recipe", "recipe", "recipes"]
