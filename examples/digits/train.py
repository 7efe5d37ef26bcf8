"""Trains the three versions of the digits classifier and writes them to `models/`.

The results are committed, so this is needed only to change them:

    pip install torch scikit-learn numpy
    python examples/digits/train.py

v1 is decent. v2 is v1 with only its last layer trained on, so that almost all of its bytes
are v1's. v3 is broken in a way that no status code shows: it takes 3 for 8 and 8 for 3.
"""

import copy
import sys
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from export import save  # noqa: E402


class Digits(nn.Module):
    """8×8 grey images, flat, brightness 0 to 1 → probabilities of the ten digits."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU())
        self.head = nn.Linear(256, 10)

    def forward(self, image):
        return torch.softmax(self.head(self.features(image)), dim=1)


def train(parameters, model, images, labels, epochs, rate):
    optimiser = torch.optim.Adam(parameters, lr=rate)
    for _ in range(epochs):
        optimiser.zero_grad()
        nn.functional.nll_loss(torch.log(model(images) + 1e-9), labels).backward()
        optimiser.step()


def accuracy(model, images, labels):
    with torch.no_grad():
        return (model(images).argmax(1) == labels).float().mean().item()


def write(model, version, images, labels):
    # The same file name for all: it is part of every header in the archive.
    path = HERE / "models" / version / "digits.pt"
    path.parent.mkdir(parents=True, exist_ok=True)
    save(torch.jit.script(model.eval()), path, {"image": ("FP32", [-1, 64])}, {"probabilities": ("FP32", [-1, 10])})
    print(f"{version}: {accuracy(model, images, labels):.3f} of the held-out images, {path.stat().st_size} bytes")


def main():
    torch.manual_seed(7)
    torch.set_num_threads(1)
    digits = load_digits()
    pixels = torch.tensor(digits.data / 16.0, dtype=torch.float32)
    labels = torch.tensor(digits.target)
    seen, held, seen_labels, held_labels = train_test_split(pixels, labels, test_size=797, random_state=7, stratify=labels)

    v1 = Digits()
    train(v1.parameters(), v1, seen, seen_labels, epochs=60, rate=1e-3)
    # The last layer as it is after a few steps only: decent.
    torch.manual_seed(8)
    v1.head = nn.Linear(256, 10)
    train(v1.head.parameters(), v1, seen[:200], seen_labels[:200], epochs=6, rate=3e-3)
    write(v1, "v1", held, held_labels)

    v2 = copy.deepcopy(v1)
    train(v2.head.parameters(), v2, seen, seen_labels, epochs=400, rate=1e-2)
    write(v2, "v2", held, held_labels)

    v3 = copy.deepcopy(v2)
    with torch.no_grad():
        v3.head.weight[[3, 8]] = v2.head.weight[[8, 3]]
        v3.head.bias[[3, 8]] = v2.head.bias[[8, 3]]
    write(v3, "v3", held, held_labels)

    # One line an image: the label, then 64 pixels of 0 to 16.
    rows = np.column_stack([held_labels.numpy(), (held.numpy() * 16).round().astype(int)])
    np.savetxt(HERE / "held-out.csv", rows, fmt="%d", delimiter=",")
    np.save(HERE / "seven.npy", held[held_labels == 7][:1].numpy())


if __name__ == "__main__":
    main()
