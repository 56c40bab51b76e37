#!/usr/bin/env python3
"""Saves a network with two inputs, a loss and a metric of its own, and arrays to train and validate it on, for
examples/jobs/torchscript_inputs.yaml.

Usage: two_inputs.py [FOLDER]      (default: two_inputs beside this program; needs torch and numpy)
"""

import pathlib
import sys
from typing import Dict

import numpy
import torch
from torch import nn

DIGITS = pathlib.Path(__file__).resolve().parents[1] / "data/digits/digits.csv"


class DigitsWithInk(nn.Module):
    """Images without their brightness, and the brightness as an input of its own."""

    def __init__(self):
        super().__init__()
        self.images = nn.Sequential(nn.Linear(64, 96), nn.ReLU(), nn.Dropout(0.1))
        self.ink = nn.Linear(1, 96)
        self.head = nn.Linear(96, 10)

    def forward(self, images: torch.Tensor, ink: torch.Tensor) -> torch.Tensor:
        return self.head(self.images(images) + torch.tanh(self.ink(ink.unsqueeze(1))))

    @torch.jit.export
    def loss(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(output, target, label_smoothing=0.05)

    @torch.jit.export
    def metrics(self, output: torch.Tensor, target: torch.Tensor) -> Dict[str, torch.Tensor]:
        best = output.topk(3, dim=1).indices
        return {"among_three": best.eq(target.unsqueeze(1)).any(1).float().mean()}


def main():
    folder = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else pathlib.Path(__file__).resolve().parent / "two_inputs"
    folder.mkdir(parents=True, exist_ok=True)
    rows = numpy.loadtxt(DIGITS, delimiter=",", dtype="f4")
    images, labels = rows[:, :64] / 16, rows[:, 64].astype("i8")
    ink = images.mean(1)
    images = images / (ink[:, None] + 0.1)
    held_out = numpy.arange(len(rows)) % 5 == 4
    for split, chosen in (("train", ~held_out), ("val", held_out)):
        for name, array in (("images", images), ("ink", ink), ("labels", labels)):
            numpy.save(folder / f"{split}_{name}.npy", array[chosen])
    torch.manual_seed(7)
    torch.jit.save(torch.jit.script(DigitsWithInk()), str(folder / "net.pt"))
    print(f"saved {folder}: net.pt, {int((~held_out).sum())} samples to train on, {int(held_out.sum())} to validate on")


if __name__ == "__main__":
    main()
