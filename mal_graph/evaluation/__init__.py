"""Data, scores, activation statistics and the held-out split."""
