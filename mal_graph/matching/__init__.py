"""Layers to layers, axis groups to axis groups, units to units."""
