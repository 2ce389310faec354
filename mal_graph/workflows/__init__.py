"""Whole jobs: assemble, sweep, zoo."""
