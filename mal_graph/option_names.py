"""Words of the options, for those who do without the library that checks them."""

COMMON = "Common"  # where `--help` shows an option that says nothing else

RENAMED = {
    "pads": "unmatched",
    "signal": "match_by",
    "scale_free": "rescale_invariant",
    "proof": "verify",
    "prove": "verify",
    "prove_timeout": "verify_timeout",
    "output": "score_output",
    "scores": "output_kind",
    "state": "checkpoint",
}
