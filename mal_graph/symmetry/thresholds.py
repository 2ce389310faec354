"""What counts as equal, as rounding and as a fault when outputs are compared: every threshold of the verification.

A deviation is max |y' - y| / max |y|, the largest over the outputs.
"""

# Measured on eight models: true groups stay below 8e-6, one missing member shows from 9e-4 on.
ACCEPT = 3e-5  # up to here outputs in float32 count as unchanged
REJECT = 3e-4  # from here on they count as changed
SHOWN = 1e-3  # a rejected group moves the outputs at least by this share of what its controls do
ABOVE_NOISE = 30.0  # a rejected group moves the outputs this many times as much as rounding does
ACCEPT_FLOAT64 = 1e-9  # up to here outputs in float64 count as unchanged
REACTS = 100.0  # a control reacts if it moves the outputs this many times as much as the whole group does
NOISE = 1e-7  # float32 rounding, the least deviation a control is compared with
NUDGE = 1e-7  # by how much weights are changed to see how rounding grows
SAME_FUNCTION = 1e-5  # up to here a rewritten network, with its own weights, counts as the same function
