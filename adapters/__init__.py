"""Framework adapters of mal_graph, imported as `mal_graph_adapters` and found through entry points."""
