"""Makes the models beside it: `pip install torch`, then `python tests/models/export.py`.

They are committed, so that building and testing need no Python (made with torch
2.13). Each stands for one way in which models are written; all are small. Some carry
`extra/sconce.json`, most do not, as most archives in the world do not.
"""

import json
import pathlib
import tempfile
import zipfile
from typing import Dict, List, NamedTuple, Optional, Tuple

import torch
from torch import Tensor, nn

HERE = pathlib.Path(__file__).parent


class Mlp(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(16, 64), nn.ReLU(inplace=True), nn.Linear(64, 4))

    def forward(self, x):
        return self.layers(x)


class Branchy(nn.Module):
    """Control flow that depends on the data."""

    def __init__(self):
        super().__init__()
        self.narrow, self.wide = nn.Linear(8, 4), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.wide(x) if bool(x.sum() > 0) else self.narrow(x)
        steps = 0
        while bool(y.abs().max() > 1) and steps < 20:
            y = y * 0.5
            steps += 1
        return y


class Convolution(nn.Module):
    """Batch norm and in-place ReLU: operators that write, none of them to the module."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2)
        self.act = nn.ReLU(inplace=True)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.act(self.norm(self.conv(image))).mean([2, 3]))


class DictOut(nn.Module):
    def __init__(self):
        super().__init__()
        self.dense = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Dict[str, Tensor]:
        logits = self.dense(x)
        return {"logits": logits, "label": logits.argmax(-1)}


class TwoIn(nn.Module):
    """Inputs of two datatypes."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(32, 4)

    def forward(self, ids: Tensor, weights: Tensor) -> Tensor:
        return (self.embed(ids) * weights.unsqueeze(-1)).sum(1)


class Scale(nn.Module):
    def forward(self, x: Tensor, n: int) -> Tensor:
        return x * n


class Options(nn.Module):
    """Every kind of scalar, all with defaults, and an optional tensor in their midst."""

    def forward(self, x: Tensor, factor: float = 2.0, bias: Optional[Tensor] = None, negate: bool = False,
                mode: str = "none") -> Tensor:
        y = x * factor
        if bias is not None:
            y = y + bias
        if negate:
            y = -y
        return y.sum() if mode == "sum" else y


class Pair(nn.Module):
    def forward(self, x: Tensor) -> Tuple[Tensor, Tensor]:
        return x + 1, x.sum()


class Corners(NamedTuple):
    low: Tensor
    high: Tensor


class Named(nn.Module):
    def forward(self, x: Tensor) -> Corners:
        return Corners(x.min(), x.max())


class Mixed(nn.Module):
    """Everything that a result can hold."""

    def forward(self, x: Tensor) -> Tuple[Tensor, int, float, bool, str, List[int], List[str], List[str], Dict[str, Tuple[Tensor, Tensor]]]:
        none: List[str] = []
        return x, 7, 0.5, True, "é", [1, 2, 3], ["a", ""], none, {"pair": (x * 2, x * 3)}


class StrLen(nn.Module):
    def forward(self, words: List[str]) -> Tensor:
        return torch.tensor([len(word) for word in words])


class Sum(nn.Module):
    def forward(self, parts: List[Tensor]) -> Tensor:
        total = torch.zeros_like(parts[0])
        for part in parts:
            total = total + part
        return total


class Identity(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x


class Overwrite(nn.Module):
    """Writes to its input, which is the caller's."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mul_(2)


class Low(nn.Module):
    """Half precision in, bfloat16 beside it."""

    def __init__(self):
        super().__init__()
        self.dense = nn.Linear(8, 4).to(torch.bfloat16)

    def forward(self, half: Tensor, brain: Tensor) -> Tuple[Tensor, Tensor]:
        return half * 2, self.dense(brain)


class Counter(nn.Module):
    """Puts a new tensor in the place of an attribute: two threads at once corrupt memory."""

    def __init__(self):
        super().__init__()
        self.register_buffer("count", torch.zeros(1, dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        self.count = self.count + x
        return self.count


class Accumulate(nn.Module):
    """Writes into its own tensor, reached through a list, and gives that very tensor away."""

    def __init__(self):
        super().__init__()
        self.register_buffer("total", torch.zeros(1024))

    def forward(self, x: Tensor) -> Tensor:
        held = [self.total]
        return held[0].add_(x)


class Raises(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if bool(x.sum() < 0):
            raise ValueError("the sum of x must not be negative")
        return x @ torch.ones(16, 2)


class FailsOnImages(nn.Module):
    """Takes what the example's classifier takes. Loads and warms up, and answers no image."""

    def forward(self, image: Tensor) -> Tensor:
        if bool(image.sum() > 0):
            raise ValueError("no image can be read")
        return torch.zeros(image.size(0), 10)


class Fork(nn.Module):
    """Asks libtorch for a second thread."""

    def forward(self, x: Tensor) -> Tensor:
        later = torch.jit.fork(torch.neg, x)
        return x * 2 + torch.jit.wait(later)


class Unsendable(nn.Module):
    """Fine code whose result has no form on the wire."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.complex(x, x)


class Strange(nn.Module):
    """An argument that no request can carry, but which has a default."""

    def forward(self, x: Tensor, sizes: Optional[Dict[str, int]] = None, y: Optional[Tensor] = None) -> Tensor:
        n = 1 if sizes is None else len(sizes)
        return x * n if y is None else x * n + y


class Simple(nn.Module):
    """What Triton's examples call `simple`."""

    def forward(self, INPUT0: Tensor, INPUT1: Tensor) -> Tuple[Tensor, Tensor]:
        return INPUT0 + INPUT1, INPUT0 - INPUT1


class Streaming(nn.Module):
    """As models of speech are written: a cache of the last frames, a recurrent state, and what was heard so far.

    Its weights are most of it, and never change.
    """

    heard: List[Tensor]

    def __init__(self):
        super().__init__()
        self.conv, self.cell, self.head = nn.Conv1d(8, 64, 3), nn.GRUCell(64, 64), nn.Linear(64, 4)
        self.register_buffer("cache", torch.zeros(1, 8, 2))
        self.register_buffer("hidden", torch.zeros(1, 64))
        # A view: what is written to the ring is read from here.
        self.register_buffer("ring", torch.zeros(4, 4))
        self.register_buffer("latest", self.ring[0])
        self.frames = 0
        self.heard = []

    def forward(self, x: Tensor) -> Dict[str, Tensor]:
        together = torch.cat([self.cache, x], 2)
        self.cache = together[:, :, -2:]
        for step in self.conv(together).relu().unbind(2):
            self.hidden = self.cell(step, self.hidden)
        scores = self.head(self.hidden)
        self.ring.copy_(self.ring.roll(1, 0))
        self.ring[0] = scores[0]
        self.frames += x.size(2)
        self.heard.append(scores)
        return {
            "scores": self.latest.unsqueeze(0).clone(),
            "mean": torch.cat(self.heard).mean(0, keepdim=True),
            "frames": torch.tensor([self.frames]),
        }


class Keeper(nn.Module):
    """What the modules below have to change, or not to."""

    def __init__(self):
        super().__init__()
        self.register_buffer("held", torch.zeros(4))
        self.seen: List[int] = [0]
        self.known: Dict[str, Tensor] = {"a": torch.zeros(4)}


class ThroughIf(Keeper):
    def forward(self, x: Tensor) -> Tensor:
        y = x
        if bool(x.sum() > 0):
            y = self.held
        return y.add_(1)


class ThroughLoop(Keeper):
    def forward(self, x: Tensor, n: int) -> Tensor:
        y = x.clone()
        for _ in range(n):
            y.add_(1)
            y = self.held
        return y


class ThroughList(Keeper):
    def forward(self, x: Tensor) -> Tensor:
        parts: List[Tensor] = []
        pair = (parts, 1)
        parts.append(self.held)
        pair[0][0].add_(1)
        return x


class ThroughView(Keeper):
    def forward(self, x: Tensor) -> Tensor:
        self.held.view(2, 2)[0].copy_(x)
        return x


class ThroughDict(Keeper):
    def forward(self, x: Tensor) -> Tensor:
        for _, value in self.known.items():
            value.add_(1)
        return x


class ThroughFork(Keeper):
    def forward(self, x: Tensor) -> Tensor:
        return torch.jit.wait(torch.jit.fork(self.add, x))

    @torch.jit.export
    def add(self, x: Tensor) -> Tensor:
        return self.held.add_(x)


class ThroughDropout(Keeper):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.dropout(self.held, 0.5, False).add_(x)


class ThroughStatistics(Keeper):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.batch_norm(x, self.held, self.held, training=True)


class ThroughNumbers(Keeper):
    def forward(self, x: Tensor) -> Tensor:
        seen = self.seen
        seen.append(1)
        return x * len(seen)


class ThroughPart(nn.Module):
    def __init__(self):
        super().__init__()
        self.parts = nn.ModuleList([Counter(), Counter()])

    def forward(self, x: Tensor) -> Tensor:
        for part in self.parts:
            x = part(x)
        return x


class ThroughShared(nn.Module):
    """Puts one attribute in the place of another, and writes to that."""

    def __init__(self):
        super().__init__()
        self.register_buffer("weight", torch.zeros(4))
        self.register_buffer("other", torch.zeros(4))

    def forward(self, x: Tensor) -> Tensor:
        self.other = self.weight
        self.other.add_(x)
        return self.weight


class ThroughAlias(nn.Module):
    """Writes to a buffer of which another is a view."""

    def __init__(self):
        super().__init__()
        self.register_buffer("whole", torch.zeros(2, 4))
        self.register_buffer("part", self.whole[1])

    def forward(self, x: Tensor) -> Tensor:
        self.whole.add_(x)
        return self.part


class Constant(nn.Module):
    """Traced, the tensor that it makes is a part of its code, and written to by every call."""

    def forward(self, x):
        total = torch.tensor([0.0, 0.0, 0.0, 0.0])
        total += x
        return total


class OwnList(Keeper):
    def forward(self, x: Tensor) -> Tensor:
        parts: List[Tensor] = []
        for _ in range(3):
            parts.append(x * self.held)
        parts[0].add_(1)
        return torch.stack(parts)


class OnlyInTraining(Keeper):
    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.held = self.held + x
        return x + self.held


class Statistics(Keeper):
    def __init__(self):
        super().__init__()
        self.norm = nn.InstanceNorm1d(4, track_running_stats=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x).relu_()


class Mask(Keeper):
    """A fresh mask written to beside a list that holds the weights, as in `nn.TransformerEncoder`."""

    def forward(self, x: Tensor) -> Tensor:
        mask = torch.zeros_like(x).masked_fill_(x > 0, 1.0)
        if all([part.dim() == 1 for part in [x, self.held]]):
            mask.add_(1)
        return (x + self.held) * mask


def field(name, datatype, *shape):
    return {"name": name, "datatype": datatype, "shape": list(shape)}


def save(name, module, inputs=None, outputs=None):
    extra = {"inputs": inputs, "outputs": outputs or []} if inputs else None
    files = {"sconce.json": json.dumps(extra)} if extra else None
    module = module if isinstance(module, torch.jit.ScriptModule) else torch.jit.script(module)
    with tempfile.TemporaryDirectory() as scratch:
        # The archive's inner folder is called what its file is.
        full = pathlib.Path(scratch) / pathlib.Path(name).with_suffix(".pt").name
        torch.jit.save(module, full, _extra_files=files)
        without_debug(full, HERE / f"{name}.pt")


def without_debug(source, target):
    """Copies an archive without its `.debug_pkl`s, which hold paths of the exporting machine."""
    writer = torch._C.PyTorchFileWriter(str(target))
    with zipfile.ZipFile(source) as archive:
        for entry in archive.namelist():
            record = entry.split("/", 1)[1]
            # The writer adds the version and its own dot files by itself.
            if record.endswith(".debug_pkl") or record.startswith(".") or record == "version":
                continue
            data = archive.read(entry)
            writer.write_record(record, data, len(data))
    writer.write_end_of_file()


def main():
    torch.manual_seed(0)
    (HERE / "state").mkdir(exist_ok=True)
    save("mlp", torch.jit.trace(Mlp().eval(), torch.zeros(1, 16)), [field("x", "FP32", -1, 16)])
    save("branchy", Branchy())
    save("convolution", Convolution().eval(), [field("image", "FP32", -1, 3, 8, 8)])
    save("dict_out", DictOut(), [field("x", "FP32", -1, 4)])
    save("two_in", TwoIn(), [field("ids", "INT64", -1, 5), field("weights", "FP32", -1, 5)])
    save("scale", Scale())
    save("options", Options())
    save("pair", Pair())
    save("named", Named())
    save("mixed", Mixed())
    save("strlen", StrLen())
    save("sum", Sum())
    save("identity", Identity())
    save("overwrite", Overwrite())
    save("low", Low())
    save("counter", Counter())
    save("accumulate", Accumulate())
    save("raises", Raises())
    save("fails_on_images", FailsOnImages(), [field("image", "FP32", -1, 64)], [field("probabilities", "FP32", -1, 10)])
    save("fork", Fork())
    save("unsendable", Unsendable())
    save("strange", Strange())
    for module in [ThroughIf, ThroughLoop, ThroughList, ThroughView, ThroughDict, ThroughFork, ThroughDropout,
                   ThroughStatistics, ThroughNumbers, ThroughPart, ThroughShared, ThroughAlias]:
        save(f"state/changes_{module.__name__.lower()}", module())
    save("state/shares_constant", torch.jit.trace(Constant(), torch.ones(4), check_trace=False))
    save("streaming", Streaming().eval(), [field("x", "FP32", 1, 8, -1)])
    for module in [OwnList, OnlyInTraining, Statistics, Mask]:
        save(f"state/keeps_{module.__name__.lower()}", module())
    save("simple", Simple(), [field("INPUT0", "INT32", 1, 16), field("INPUT1", "INT32", 1, 16)],
         [field("OUTPUT0", "INT32", 1, 16), field("OUTPUT1", "INT32", 1, 16)])


if __name__ == "__main__":
    main()
