"""What ATen's operators are in ONNX's vocabulary, as torch.export leaves them: before any decomposition.

One module for each family. Every function gets the site and the arguments in the order of the operator's schema, and
enters itself into the table of `lowering` when its module is imported, so that whoever takes `lowering_of` from here
finds the table full. Sources: ATen's schemas, and the ONNX operator
specification. What stands here but in ONNX's operators of a later opset is written out.
"""

from ..lowering import lowering_of
from . import contractions, elementwise, filling, indexing, layout, normalisation, pooling, recurrent, reductions

__all__ = [
    "contractions",
    "elementwise",
    "filling",
    "indexing",
    "layout",
    "lowering_of",
    "normalisation",
    "pooling",
    "recurrent",
    "reductions",
]
