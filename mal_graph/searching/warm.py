"""Loads what every worker needs: processes that are forked from one that has imported this begin to work at once."""

from mal_graph import registry
from mal_graph.searching import tasks as tasks  # with all that its functions call

registry.adapters()
registry.registered_runner("onnxruntime")
