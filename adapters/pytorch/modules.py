"""torch modules as layer graphs, and back.

A module is traced by `torch.fx.symbolic_trace` where that gives a module which computes the same: it keeps submodules
and their names, and can be trained. Where it does not - Python that asks for shapes, keyword arguments - the program of
`torch.export` takes its place. Either way torch.export without any decomposition gives the operators, which are lowered
onto ONNX's (`aten`). The weights stay the module's own. torch says of every operator which call of the traced
module it came from; so numbers that a merge changes are written back into the code (`rewrite_code`).

Chosen: lowering ATen's operators only. Refused: lowering the modules and functions of torch.fx, several hundred names
with signatures of their own for what torch itself reduces to some hundred operators with schemas; and torch's ONNX
exporter, which takes ten times as long and needs onnxscript.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from mal_graph.compression import Branches
from mal_graph.errors import UsageError
from mal_graph.graph import LayerGraph
from mal_graph.protocols import Check
from mal_graph.seals import PROVENANCE, Sealed
from mal_graph.shards import INDEX, STATE

from .branches import mean_module
from .factory import build_module, read_weights
from .giving_back import merged_module, merged_state
from .gradients import Gradients
from .seal import read_seal
from .state_files import write_state
from .tracing import Traced, trace_module


class TorchAdapter:
    """Traces modules and gives them back."""

    def trace(self, module: Any, example_inputs: Any = None, dynamic_shapes: Any = None) -> LayerGraph:
        """The layer graph of a module, a GraphModule or an ExportedProgram. Raises UnsupportedModel or DataError."""
        return trace_module(module, example_inputs, dynamic_shapes)

    def to_module(self, graph: LayerGraph) -> nn.Module:
        """A copy of what was traced, with the graph's weights; of several that are averaged, their mean. Raises
        UnsupportedModel or ShapeError."""
        return mean_module(graph, merged_module) if isinstance(graph.source, Branches) else merged_module(graph)

    def state_dict(self, graph: LayerGraph) -> dict[str, Tensor]:
        """The state of the module that was traced, with the graph's weights. Raises UnsupportedModel or ShapeError."""
        return merged_state(graph)

    def gradients(self, graph: LayerGraph, output: str, names: Sequence[str]) -> Gradients | None:
        """How an output moves with some weights of a graph that was traced; None where it was not."""
        return Gradients(graph, output, tuple(names)) if isinstance(graph.source, Traced) else None

    def save(
        self,
        graph: LayerGraph,
        path: Path,
        accept: Callable[[Path], None] | None = None,
        *,
        overwrite: bool = True,
        shard_size: int | None = None,
        resume: bool = False,
    ) -> None:
        """Write the state as a `.safetensors` file, or as several of at most `shard_size` bytes and their index,
        completely or not at all; written anew where a run was killed. Raises FileError, and UsageError where a tensor
        is larger than a file may be."""
        if path.name.endswith(INDEX):
            raise UsageError(
                f"{path} is written with the files that it lists: name {path.name.removesuffix(INDEX)}{STATE}"
            )
        provenance = graph.metadata.get(PROVENANCE, "")
        write_state(
            merged_state(graph), path, accept, overwrite=overwrite, provenance=provenance, shard_size=shard_size
        )

    def check(self, path: Path) -> tuple[Check, ...]:
        """Whether a written file can be read."""
        read_weights(path)
        return (Check("safetensors", True),)

    def read_seal(self, path: Path) -> Sealed:
        """What a written file says of itself, and whether it is as it was written. Raises FileError."""
        return read_seal(path)

    def build(self, target: str, weights: Path | None = None) -> nn.Module:
        """The module that `package.module:factory` makes (see `factory`)."""
        return build_module(target, weights)
