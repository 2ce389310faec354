"""From an alignment to merged weights: plan, widen, deepen, compensate, blend, repair."""
