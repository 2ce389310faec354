"""Crafted files, made in code: what a stranger may send. `KINDS` has all of them by name."""

from crafted import (
    archives,
    arithmetic,
    attributes,
    beside,
    claims,
    contributed,
    growing,
    lying,
    modules,
    names,
    places,
    recipes,
    sizes,
    stored,
    wire,
)
from crafted.kind import KINDS as KINDS
from crafted.kind import Kind as Kind

NOTING = (  # loading them notes their kinds
    *(archives, arithmetic, attributes, beside, claims, contributed, growing),
    *(lying, modules, names, places, recipes, sizes, stored, wire),
)
