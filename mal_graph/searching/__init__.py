"""Searches: which donors to merge, and how much of each, from many candidates that are scored."""

from mal_graph.searching.candidates import Candidate, Figure, Trial, pareto_front
from mal_graph.searching.method import Proposals, SearchMethod, Space, find_search, search_method
from mal_graph.searching.results import Finalist, Search, objectives
from mal_graph.searching.search_job import search

__all__ = [
    "Candidate",
    "Figure",
    "Finalist",
    "find_search",
    "objectives",
    "pareto_front",
    "Proposals",
    "Search",
    "search",
    "search_method",
    "SearchMethod",
    "Space",
    "Trial",
]
