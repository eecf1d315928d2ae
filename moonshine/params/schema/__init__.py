"""The typed schema of params.yaml: every key, its type and its range.

The schema checks and never fills in: a value that can change a result is either required or None, and the code that
uses it, which the stages declare, decides what None means. Only `machine` has defaults, because nothing in it changes a
result. So an edit of these files makes no trained network stale. What files in experiments/ may leave out is in
defaults.py, and `moonshine use` writes it into params.yaml.

The docstring below each key is its text in docs/parameters.md, which `make docs` writes.
"""

from moonshine.params.schema.dataset import CLASSES, DATA_FILES, GREY, JPEG_SOURCES, DataFile, Dataset, Evaluation
from moonshine.params.schema.experiment import Params
from moonshine.params.schema.machine import Job, Machine
from moonshine.params.schema.methods import Dist, Distil, Dkd, Method, Ttm
from moonshine.params.schema.networks import TEACHER, Checkpoint, Network, Normalisation, PinnedFile
from moonshine.params.schema.recipe import Augmentation, MisfitError, OwnRecipe, Recipe
from moonshine.params.schema.results import AttentionMaps, Published, Quantise, Table
from moonshine.params.schema.search import BUDGETS, Search
from moonshine.params.schema.values import Name, Section

__all__ = [
    "BUDGETS",
    "CLASSES",
    "DATA_FILES",
    "GREY",
    "JPEG_SOURCES",
    "TEACHER",
    "AttentionMaps",
    "Augmentation",
    "Checkpoint",
    "DataFile",
    "Dataset",
    "Dist",
    "Distil",
    "Dkd",
    "Evaluation",
    "Job",
    "Machine",
    "Method",
    "MisfitError",
    "Name",
    "Network",
    "Normalisation",
    "OwnRecipe",
    "Params",
    "PinnedFile",
    "Published",
    "Quantise",
    "Recipe",
    "Search",
    "Section",
    "Table",
    "Ttm",
]
