"""Makes the archives beside it: python lib/artifact/testdata/make.py (torch 2.13).

They are committed so that the tests need no Python. Each stands for one way in
which people export models; none is larger than a few kilobytes but the pair
`layers_a` / `layers_b`, which differ in one layer and show what a push shares.
"""

import json
import pathlib
from typing import Dict, List, Optional, Tuple

import torch
from torch import Tensor, nn

HERE = pathlib.Path(__file__).parent


class Flow(nn.Module):
    """Control flow, and an argument of every scalar kind."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(16, 64)
        self.last = nn.Linear(64, 4)

    def forward(self, x: Tensor, n: int = 3, mode: str = "sum", w: Optional[Tensor] = None,
                scale: float = 0.5, keep: bool = True) -> Tensor:
        y = torch.relu(self.first(x))
        for i in range(n):
            y = y * scale + float(i)
        if w is not None:
            y = y + w
        if mode == "sum" and not keep:
            return self.last(y).sum()
        return self.last(y)


class Words(nn.Module):
    """Texts and a list of tensors; strings and defaults that must not confuse a scan."""

    def __init__(self):
        super().__init__()
        self.register_buffer("base", torch.arange(4.0))

    def forward(self, words: List[str], parts: List[Tensor], sep: str = "a, b) -> (\"[") -> Tuple[Tensor, Tensor]:
        """Does not call torch.load(((( at all."""
        n = 0
        for word in words:
            n += len(word)
        print("torch.from_file(((( # nothing")
        return self.base + n, torch.stack(parts).sum()


class TwoInputs(nn.Module):
    """Inputs of two datatypes, outputs in a dict."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(10, 4)
        self.dense = nn.Linear(4, 2)

    def forward(self, ids, dense_input):
        return {"scores": self.dense(self.embed(ids).sum(1) + dense_input), "ids": ids + 1}


class Repeat(nn.Module):
    """A scalar integer that must be given."""

    def forward(self, x: Tensor, times: int) -> Tensor:
        return x.repeat(times)


class Star(nn.Module):
    """Tracing this leaves torch without names for its arguments."""

    def forward(self, *parts):
        return parts[0] + parts[1]


class Inner(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.lin = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.lin(x))


class Layers(nn.Module):
    def __init__(self, width=96):
        super().__init__()
        self.blocks = nn.Sequential(Inner(width), Inner(width), Inner(width))
        self.head = nn.Linear(width, 2)

    def forward(self, x: Tensor) -> List[Tensor]:
        return [self.head(self.blocks(x))]


def save(module, name, **extra):
    torch.jit.save(module, HERE / f"{name}.pt", _extra_files=extra or None)


def main():
    torch.manual_seed(0)
    ids, dense = torch.zeros(1, 3, dtype=torch.int64), torch.zeros(1, 4)
    save(torch.jit.script(Flow()), "scripted_flow")
    save(torch.jit.script(Words()), "scripted_words")
    save(torch.jit.script(Repeat()), "scripted_repeat")
    save(torch.jit.trace(nn.Linear(4, 2), (torch.zeros(1, 4),)), "traced_linear")
    save(torch.jit.trace(TwoInputs(), (ids, dense), strict=False), "traced_dict")
    save(torch.jit.trace(Star(), (torch.zeros(2), torch.zeros(2))), "traced_nameless")
    extra = {"inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 16]}],
             "outputs": [{"name": "logits", "datatype": "FP32", "shape": [-1, 4]}]}
    save(torch.jit.script(Flow()), "scripted_extra", **{"sconce.json": json.dumps(extra)})
    # Two files of one stem, as two exports of one model would have.
    layers = Layers()
    save(torch.jit.script(layers), "layers_a")
    with torch.no_grad():
        layers.blocks[1].lin.weight.add_(1)
    buffer = torch.jit.script(layers)
    (HERE / "next").mkdir(exist_ok=True)
    torch.jit.save(buffer, HERE / "next" / "layers_a.pt")
    (HERE / "next" / "layers_a.pt").rename(HERE / "layers_b.pt")
    (HERE / "next").rmdir()


if __name__ == "__main__":
    main()
