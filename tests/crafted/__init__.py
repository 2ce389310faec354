"""Crafted files, made in code: what a stranger may send. `KINDS` has all of them by name."""

from crafted import arithmetic, beside, claims, growing, names, sizes, stored
from crafted.kind import KINDS as KINDS
from crafted.kind import Kind as Kind

NOTING = (arithmetic, beside, claims, growing, names, sizes, stored)  # loading them notes their kinds
