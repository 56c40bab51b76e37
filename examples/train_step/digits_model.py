"""A network for the digits with its loss, to be trained without Python.

    scripts/export_train_step.py examples/train_step/digits_model.py      (then examples/jobs/train_step.yaml)
"""

import torch
from torch import nn
from torch.nn import functional


def model():
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(),
        nn.MaxPool2d(2), nn.Flatten(), nn.Linear(32 * 4 * 4, 10),
    )


def loss(output, target):
    return functional.cross_entropy(output, target, label_smoothing=0.05)


def example():
    return torch.rand(8, 1, 8, 8), torch.arange(8) % 10
