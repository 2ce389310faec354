"""What each operator does to the axes, sizes, zeros and scales of its tensors: one table, one row per operator."""
