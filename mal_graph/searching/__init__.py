"""Searches: which donors to merge, and how much of each, from many candidates that are scored."""

from mal_graph.searching.candidates import Candidate, Figure, Trial, pareto_front
from mal_graph.searching.item_response import Items, estimate_ability, estimate_accuracy, fit_items
from mal_graph.searching.method import Proposals, SearchMethod, Space, find_search, search_method
from mal_graph.searching.results import Finalist, Search
from mal_graph.searching.search_job import search

__all__ = [
    "Candidate",
    "estimate_ability",
    "estimate_accuracy",
    "Figure",
    "Finalist",
    "find_search",
    "fit_items",
    "Items",
    "pareto_front",
    "Proposals",
    "Search",
    "search",
    "search_method",
    "SearchMethod",
    "Space",
    "Trial",
]
