"""Networks of blocks, each of which may order the units that it reads and makes by itself, permuted by hand."""

import numpy as np
import torch
from planted_kinds import columns, moved, rows
from published_kinds import both, in_heads, vectors
from torch import nn
from torch.nn import functional

CLASSES = 3


class Bottleneck(nn.Module):
    """RegNet and ResNeXt: a grouped convolution between two pointwise ones, beside a residual stream."""

    def __init__(self, stream: int, groups: int, size: int):
        super().__init__()
        self.groups, self.size = groups, size
        width = groups * size
        self.a, self.norm_a = nn.Conv2d(stream, width, 1, bias=False), nn.BatchNorm2d(width)
        self.b, self.norm_b = nn.Conv2d(width, width, 3, padding=1, groups=groups, bias=False), nn.BatchNorm2d(width)
        self.c = nn.Conv2d(width, stream, 1)

    def forward(self, x):
        y = functional.relu(self.norm_a(self.a(x)))
        return functional.relu(x + self.c(functional.relu(self.norm_b(self.b(y)))))

    def permute(self, rng, stream):
        groups = rng.permutation(self.groups)
        read, made = (in_heads(rng, groups, self.size) for _ in range(2))
        columns(self.a, stream)
        for norm, layer, order in ((self.norm_a, self.a, read), (self.norm_b, self.b, made)):
            rows(layer, order) if layer is self.a else moved(layer.weight, 0, order)
            for tensor in vectors(norm):
                moved(tensor, 0, order)
        inside_blocks(self.b.weight, made // self.size, read % self.size, read // self.size)
        both(self.c, stream, made)


def inside_blocks(weight: torch.Tensor, blocks: np.ndarray, places: np.ndarray, of: np.ndarray) -> None:
    """Permute what each block reads: the rows of a weight stand in the order wanted already, and belong to `blocks`."""
    with torch.no_grad():
        for block in np.unique(blocks):
            here = torch.tensor(np.flatnonzero(blocks == block))
            weight[here] = weight[here][:, torch.tensor(places[of == block])].clone()


class GroupedNet(nn.Module):
    """Such a block on a stream, or several."""

    shape = (2, 3, 6, 6)

    def __init__(self, stream: int = 7, groups: int = 3, size: int = 4, depth: int = 1):
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, stream, 3, padding=1), nn.Linear(stream, CLASSES)
        self.body = nn.ModuleList(Bottleneck(stream, groups, size) for _ in range(depth))

    def forward(self, x):
        x = functional.relu(self.stem(x))
        for block in self.body:
            x = block(x)
        return self.head(x.mean((2, 3)))

    def permute(self, rng):
        stream = rng.permutation(self.stem.out_channels)
        rows(self.stem, stream)
        for block in self.body:
            block.permute(rng, stream)
        columns(self.head, stream)


class BlockDiagonal(nn.Module):
    """A recurrence-free gate of Griffin: a matrix for each block of units, between two layers that mix all."""

    shape = (2, 5, 6)

    def __init__(self, stream: int = 8, blocks: int = 3, size: int = 4, made: int = 5):
        super().__init__()
        self.blocks, self.size, self.made = blocks, size, made
        self.inward, self.head = nn.Linear(6, blocks * size), nn.Linear(blocks * made, CLASSES)
        self.weight = nn.Parameter(torch.randn(blocks, size, made))
        self.bias = nn.Parameter(torch.randn(blocks, made))

    def forward(self, x):
        x = functional.gelu(self.inward(x))
        n, t, _ = x.shape
        y = torch.einsum("ntgi,gij->ntgj", x.view(n, t, self.blocks, self.size), self.weight) + self.bias
        return self.head(torch.tanh(y).reshape(n, t, -1))

    def permute(self, rng):
        blocks = rng.permutation(self.blocks)
        read, made = in_heads(rng, blocks, self.size), in_heads(rng, blocks, self.made)
        rows(self.inward, read)
        with torch.no_grad():
            weight, bias = self.weight.clone(), self.bias.clone()
            for place, block in enumerate(blocks):
                own = read[place * self.size : (place + 1) * self.size] % self.size
                given = made[place * self.made : (place + 1) * self.made] % self.made
                self.weight[place] = weight[block][own][:, given]
                self.bias[place] = bias[block][given]
        columns(self.head, made)


class States(nn.Module):
    """S4D: a few decaying states for each channel, each channel its own."""

    shape = (2, 4, 5)

    def __init__(self, width: int = 6, states: int = 4):
        super().__init__()
        self.inward, self.head = nn.Linear(5, width), nn.Linear(width, CLASSES)
        self.rate, self.enters, self.leaves = (nn.Parameter(torch.randn(width, states)) for _ in range(3))
        self.step, self.skip = nn.Parameter(torch.rand(width)), nn.Parameter(torch.randn(width))

    def forward(self, x):
        x = self.inward(x)
        step = functional.softplus(self.step)[:, None]
        kept, entered = torch.exp(-step * self.rate.exp()), step * self.enters
        state, given = torch.zeros_like(x[:, 0, :, None] * entered), []
        for place in range(self.shape[1]):
            state = kept * state + entered * x[:, place, :, None]
            given.append((self.leaves * state).sum(-1) + self.skip * x[:, place])
        return self.head(functional.gelu(torch.stack(given, 1)))

    def permute(self, rng):
        width = rng.permutation(len(self.step))
        rows(self.inward, width)
        for tensor in (self.step, self.skip, self.rate, self.enters, self.leaves):
            moved(tensor, 0, width)
        with torch.no_grad():
            for channel in range(len(width)):
                order = torch.tensor(rng.permutation(self.rate.shape[1]))
                for tensor in (self.rate, self.enters, self.leaves):
                    tensor[channel] = tensor[channel][order].clone()
        columns(self.head, width)


class Transposed(nn.Module):
    """A grouped transposed convolution between two layers that mix all channels."""

    shape = (2, 3, 5, 5)

    def __init__(self, groups: int = 3, read: int = 3, made: int = 4):
        super().__init__()
        self.groups, self.read, self.made = groups, read, made
        self.stem = nn.Conv2d(3, groups * read, 3, padding=1)
        self.up = nn.ConvTranspose2d(groups * read, groups * made, 2, 2, groups=groups)
        self.head = nn.Linear(groups * made, CLASSES)

    def forward(self, x):
        return self.head(torch.tanh(self.up(functional.relu(self.stem(x)))).mean((2, 3)))

    def permute(self, rng):
        groups = rng.permutation(self.groups)
        read, made = in_heads(rng, groups, self.read), in_heads(rng, groups, self.made)
        rows(self.stem, read)
        moved(self.up.weight, 0, read)
        inside_blocks(self.up.weight, read // self.read, made % self.made, made // self.made)
        moved(self.up.bias, 0, made)
        columns(self.head, made)


class Residual(nn.Module):
    """Grouped convolutions that give what they read, so that both have the order of the stream."""

    shape = (2, 3, 6, 6)

    def __init__(self, groups: int = 3, size: int = 4):
        super().__init__()
        self.groups, self.size = groups, size
        self.stem, self.head = nn.Conv2d(3, groups * size, 3, padding=1), nn.Linear(groups * size, CLASSES)
        self.body = nn.ModuleList(
            nn.Conv2d(groups * size, groups * size, 3, padding=1, groups=groups) for _ in range(2)
        )

    def forward(self, x):
        x = functional.relu(self.stem(x))
        for layer in self.body:
            x = functional.relu(x + layer(x))
        return self.head(x.mean((2, 3)))

    def permute(self, rng):
        stream = in_heads(rng, rng.permutation(self.groups), self.size)
        rows(self.stem, stream)
        for layer in self.body:
            rows(layer, stream)
            inside_blocks(layer.weight, stream // self.size, stream % self.size, stream // self.size)
        columns(self.head, stream)


class Shuffled(nn.Module):
    """ShuffleNet: channels are shuffled between two grouped convolutions."""

    shape = (2, 3, 6, 6)

    def __init__(self, stream: int = 6, groups: int = 2, size: int = 4):
        super().__init__()
        self.groups, self.size = groups, size
        width = groups * size
        self.stem, self.head = nn.Conv2d(3, stream, 3, padding=1), nn.Linear(stream, CLASSES)
        self.before, self.after = nn.Conv2d(stream, width, 1), nn.Conv2d(width, stream, 1)
        self.a, self.norm_a = nn.Conv2d(width, width, 1, groups=groups, bias=False), nn.BatchNorm2d(width)
        self.each, self.norm = nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False), nn.BatchNorm2d(width)
        self.b = nn.Conv2d(width, width, 1, groups=groups)

    def forward(self, x):
        x = functional.relu(self.stem(x))
        y = functional.relu(self.norm_a(self.a(functional.relu(self.before(x)))))
        n, c, h, w = y.shape
        y = y.view(n, self.groups, self.size, h, w).transpose(1, 2).reshape(n, c, h, w)
        y = functional.relu(self.b(self.norm(self.each(y))))
        return self.head((x + self.after(y)).mean((2, 3)))

    def permute(self, rng):
        stream, size = rng.permutation(self.stem.out_channels), self.size
        each, cell = np.arange(self.groups), size // self.groups  # what one group gives another
        rows(self.stem, stream)
        columns(self.head, stream)
        read = in_heads(rng, each, size)
        both(self.before, read, stream)
        cells = np.arange(self.groups * self.groups)
        made = in_heads(rng, cells, cell)
        rows(self.a, made)
        inside_blocks(self.a.weight, made // size, read % size, read // size)
        for tensor in vectors(self.norm_a):
            moved(tensor, 0, made)
        shuffled = np.arange(self.groups * size).reshape(self.groups, size).T.ravel()
        order = np.argsort(shuffled)[made][shuffled]
        moved(self.each.weight, 0, order)
        for tensor in vectors(self.norm):
            moved(tensor, 0, order)
        given = in_heads(rng, each, size)
        rows(self.b, given)
        inside_blocks(self.b.weight, given // size, order % size, order // size)
        both(self.after, stream, given)


class Looked(nn.Module):
    """Such a block behind a table."""

    def __init__(self, entries: int = 12):
        super().__init__()
        self.table, self.body = nn.Embedding(entries, 6), BlockDiagonal()

    def forward(self, x):
        return self.body(self.table(x)[:, None])


KINDS = (GroupedNet, Transposed, BlockDiagonal, States, Residual, Shuffled)
