"""Recurrent operators: none has a rule yet.

An LSTM or GRU stores its gates one behind the other on one axis, and both directions of a network in one tensor. A rule
must tie the units of every gate, of the state and of the output to each other, direction by direction; until there is
one, their axes freeze. The torch adapter writes recurrent modules out as elementary operators, which have rules.
"""

from collections.abc import Mapping

WITHOUT_ROW: Mapping[str, tuple[str, ...]] = {
    "gates share one axis: not followed yet": (
        "GRU",
        "GRUUnit",
        "LSTM",
        "com.microsoft.AttnLSTM",
        "com.microsoft.DynamicQuantizeLSTM",
    ),
    "directions share one tensor: not followed yet": ("RNN",),
    "it carries a state between calls": (
        "CausalConvWithState",
        "com.microsoft.CausalConvWithState",
        "com.microsoft.ConvStateReplay",
        "com.microsoft.GatedDeltaNet",
        "com.microsoft.GatedDeltaNetStateReplay",
        "com.microsoft.LinearAttentionGate",
        "com.microsoft.Mamba2Verify",
        "com.microsoft.SpeculativePrefixCommit",
        "com.microsoft.VarlenCausalConvWithState",
    ),
}
