"""Weight-space merging of exported neural networks: two ONNX files of any width and depth in, one ONNX file out.

    result = mal_graph.assemble("base.onnx", "donor.onnx", lam=0.3)
    print(result.summary())
    result.save("merged.onnx")

The public names stand in `__init__.pyi`. They are loaded when they are first used, so that importing this package
loads no framework and no numpy.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
