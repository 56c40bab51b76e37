"""Writes optimizer_reference.json: parameters after each update of torch.optim, in float64. Run with the tree's own Python and torch."""
import json
import math
import pathlib

import torch

torch.set_default_dtype(torch.float64)
STEPS = 12
CASES = [
    ("sgd", {"lr": 0.1}), ("sgd", {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}),
    ("sgd", {"lr": 0.1, "momentum": 0.9, "nesterov": True}), ("sgd", {"lr": 0.1, "momentum": 0.9, "dampening": 0.5}),
    ("adam", {"lr": 0.01}), ("adam", {"lr": 0.01, "betas": [0.8, 0.95], "weight_decay": 0.1, "amsgrad": True}),
    ("adamw", {"lr": 0.01}), ("adamw", {"lr": 0.01, "weight_decay": 0.2, "eps": 1e-4}),
    ("adagrad", {"lr": 0.1}), ("adagrad", {"lr": 0.1, "lr_decay": 0.1, "initial_accumulator_value": 0.5, "weight_decay": 0.1}),
    ("nadam", {"lr": 0.01}), ("nadam", {"lr": 0.01, "weight_decay": 0.1, "decoupled_weight_decay": True}),
    ("radam", {"lr": 0.05, "weight_decay": 0.1}), ("radam", {"lr": 0.05, "weight_decay": 0.1, "decoupled_weight_decay": True}),
    ("rmsprop", {"lr": 0.01}), ("rmsprop", {"lr": 0.01, "momentum": 0.9, "centered": True, "weight_decay": 0.1}),
    ("lion", {"lr": 0.01, "weight_decay": 0.1}),
    ("adadelta", {"lr": 0.5}), ("adadelta", {"rho": 0.8, "eps": 1e-5, "weight_decay": 0.1}),
    ("adamax", {"lr": 0.01}), ("adamax", {"betas": [0.8, 0.95], "weight_decay": 0.1}),
    ("asgd", {"lr": 0.1, "weight_decay": 0.01}), ("asgd", {"lr": 0.1, "lambd": 0.1, "alpha": 0.5, "t0": 3}),
    ("rprop", {"lr": 0.05}), ("rprop", {"etas": [0.3, 1.5], "step_sizes": [0.001, 0.02]}),
    ("adafactor", {"lr": 0.05}), ("adafactor", {"beta2_decay": -0.5, "eps": 0.01, "eps1": 1e-3, "clip_threshold": 1.2, "weight_decay": 0.1}),
    ("muon", {"lr": 0.02, "weight_decay": 0.1}), ("muon", {"lr": 0.02, "momentum": 0.8, "nesterov": False, "ns_steps": 3}),
]
LBFGS = [{"lr": 0.5}, {"lr": 0.3, "max_iter": 4, "history_size": 3}, {"line_search_fn": "strong_wolfe", "max_iter": 6}]
CLASSES = {"sgd": "SGD", "adam": "Adam", "adamw": "AdamW", "adagrad": "Adagrad", "nadam": "NAdam", "radam": "RAdam", "rmsprop": "RMSprop",
           "adadelta": "Adadelta", "adamax": "Adamax", "asgd": "ASGD", "rprop": "Rprop", "adafactor": "Adafactor"}

# Our names -> arguments of torch.optim.
def arguments(kind, options):
    if kind != "adafactor":
        return options
    rest = {key: value for key, value in options.items() if key not in ("eps", "eps1", "clip_threshold")}
    return {"eps": (options.get("eps1"), options.get("eps", 1e-3)), "d": options.get("clip_threshold", 1.0), **rest}


def start():
    return torch.linspace(-1, 1, 6).reshape(2, 3), torch.linspace(0.5, 2, 3)


def grads(step):
    return (torch.tensor([[math.sin(step + i * 3 + j) for j in range(3)] for i in range(2)]),
            torch.tensor([math.cos(2 * step + j) for j in range(3)]))


def lion(values, means, gradients, lr, weight_decay, betas=(0.9, 0.99)):
    for value, mean, grad in zip(values, means, gradients):
        value.mul_(1 - lr * weight_decay)
        value.sub_(lr * torch.sign(betas[0] * mean + (1 - betas[0]) * grad))
        mean.mul_(betas[1]).add_((1 - betas[1]) * grad)


def run(kind, options):
    values = [tensor.clone().requires_grad_() for tensor in start()]
    if kind == "muon":  # matrices by Muon, the rest by AdamW, as the optimizer under test divides them
        shared = {"lr": options["lr"], "weight_decay": options.get("weight_decay", 0.1)}
        others = torch.optim.AdamW([values[1]], betas=(0.9, 0.999), eps=1e-8, **shared)
        optimizer = torch.optim.Muon([values[0]], **options)
    else:
        others = None
        optimizer = getattr(torch.optim, CLASSES[kind])(values, **arguments(kind, options)) if kind != "lion" else None
    means = [torch.zeros_like(value) for value in values]
    trace = []
    for step in range(STEPS):
        gradients = grads(step)
        if optimizer is None:
            with torch.no_grad():
                lion(values, means, gradients, **options)
        else:
            for value, grad in zip(values, gradients):
                value.grad = grad
            optimizer.step()
            if others is not None:
                others.step()
        trace.append([value.detach().flatten().tolist() for value in values])
    return {"type": kind, "options": options, "trace": trace}


def run_lbfgs(options):
    values = [tensor.clone().requires_grad_() for tensor in start()]
    optimizer = torch.optim.LBFGS(values, **options)

    def closure():
        optimizer.zero_grad()
        loss = ((values[0] ** 2 - 1) ** 2).sum() + ((values[1] - values[0].sum(0)) ** 2).sum() / 2
        loss.backward()
        return loss

    trace = []
    for _ in range(4):
        optimizer.step(closure)
        trace.append([value.detach().flatten().tolist() for value in values])
    return {"options": options, "trace": trace}


out = pathlib.Path(__file__).parents[3] / "data" / "optimizer_reference.json"
out.write_text(json.dumps({"torch": torch.__version__, "cases": [run(*case) for case in CASES], "lbfgs": [run_lbfgs(options) for options in LBFGS]}) + "\n")
