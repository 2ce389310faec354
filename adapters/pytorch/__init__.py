"""torch modules: tracing them, and giving weights back."""
