"""Rows of published tables: their recipes, what they cost, and our numbers beside theirs.

Importing it imports no torch: planning and costs are in modules of their own.
"""

from sparcl_lib.reproduction.tables import (
    PublishedNumbers,
    PublishedTable,
    RowRecipe,
    get_recipe,
    get_table,
    recipes,
    table_names,
    tables,
)

__all__ = [
    "PublishedNumbers",
    "PublishedTable",
    "RowRecipe",
    "get_recipe",
    "get_table",
    "recipes",
    "table_names",
    "tables",
]
