#!/usr/bin/env python3
"""Saves a small network for the digits, to be trained without Python: examples/jobs/torchscript.yaml.

Usage: export.py [FILE]      (default: digits_cnn.pt beside this program; needs torch)
"""

import pathlib
import sys

import torch
from torch import nn


class DigitsCnn(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(),
            nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(),
            nn.MaxPool2d(2),
        )
        self.dropout = nn.Dropout(0.1)
        self.head = nn.Linear(32 * 4 * 4, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.dropout(self.features(images).flatten(1)))


def main():
    default = pathlib.Path(__file__).resolve().parent / "digits_cnn.pt"
    target = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else default
    torch.manual_seed(7)
    torch.jit.save(torch.jit.script(DigitsCnn()), str(target))
    print(f"saved {target} ({target.stat().st_size} bytes)")


if __name__ == "__main__":
    main()
