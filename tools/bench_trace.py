"""What tracing a module and finding its groups adds to torch's own tracing: `python tools/bench_trace.py`.

A ResNet-50 written here, with random weights. torch's own part is `torch.fx.symbolic_trace` and one `torch.export` for
any number of samples; ours is `mal_graph.trace`, which does both, and `mal_graph.axis_groups`. All in this process, in
turns, CPU seconds on one thread, the median of several runs; what is reported is the ratio of what is added.
"""

import argparse
import statistics
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from time import process_time
from typing import Any

import torch
from torch import Tensor, nn

import mal_graph


class Bottleneck(nn.Module):
    def __init__(self, units_in: int, units: int, stride: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(
            [nn.Conv2d(units_in, units, 1, bias=False), nn.Conv2d(units, units, 3, stride, 1, bias=False)]
        )
        self.convs.append(nn.Conv2d(units, 4 * units, 1, bias=False))
        self.norms = nn.ModuleList(nn.BatchNorm2d(conv.out_channels) for conv in self.convs)
        self.short: nn.Module = nn.Identity()
        if stride > 1 or units_in != 4 * units:
            conv = nn.Conv2d(units_in, 4 * units, 1, stride, bias=False)
            self.short = nn.Sequential(conv, nn.BatchNorm2d(4 * units))

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.norms[0](self.convs[0](x)))
        y = torch.relu(self.norms[1](self.convs[1](y)))
        return torch.relu(self.norms[2](self.convs[2](y)) + self.short(x))


def resnet50() -> nn.Module:
    blocks: list[nn.Module] = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU()]
    blocks.append(nn.MaxPool2d(3, 2, 1))
    units_in = 64
    for stage, count in enumerate((3, 4, 6, 3)):
        units = 64 * 2**stage
        for block in range(count):
            blocks.append(Bottleneck(units_in, units, 2 if block == 0 and stage else 1))
            units_in = 4 * units
    return nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(units_in, 1000)).eval()


def seconds(action: Callable[[], Any]) -> float:
    start = process_time()
    action()
    return process_time() - start


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("-o", "--output", type=Path, help="write the result here")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    module, image = resnet50(), torch.randn(2, 3, 64, 64)
    batch = {"input": {0: torch.export.Dim.AUTO}}
    rows: list[tuple[float, ...]] = []
    mal_graph.trace(module, image)  # what torch imports on first use is nobody's
    for _ in range(options.runs):
        symbolic = seconds(lambda: torch.fx.symbolic_trace(module))
        export = seconds(lambda: torch.export.export(module, (image,), dynamic_shapes=batch, strict=False))
        traced = seconds(lambda: rows_graph.append(mal_graph.trace(module, image)))
        groups = seconds(lambda: mal_graph.axis_groups(rows_graph[-1]))
        rows.append((symbolic, export, traced, groups))
    symbolic, export, traced, groups = (statistics.median(column) for column in zip(*rows, strict=True))
    added = (traced + groups - symbolic - export) / (symbolic + export)
    text = (
        f"torch.fx.symbolic_trace {symbolic:.2f} s, torch.export {export:.2f} s; mal_graph.trace {traced:.2f} s, "
        f"mal_graph.axis_groups with its probe {groups:.2f} s: {added:.2f} times torch's own tracing is added"
    )
    print(text)
    if options.output is not None:
        options.output.write_text(f"# Tracing a ResNet-50\n\n{text}.\n\nMade by `python tools/bench_trace.py`.\n")
    return 0


rows_graph: list[Any] = []

if __name__ == "__main__":
    sys.exit(main())
