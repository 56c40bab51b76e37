"""Writes schedule_reference.json: learning rates and momenta of torch.optim.lr_scheduler. Run with the tree's own Python and torch."""
import json
import pathlib
import warnings

import torch

warnings.simplefilter("ignore")
STEPS = 20
METRICS = [1.0, 0.9, 0.95, 0.96, 0.97, 0.8, 0.82, 0.83, 0.84, 0.85, 0.86, 0.7, 0.9, 0.91, 0.92, 0.6, 0.61, 0.62, 0.63]
CASES = [
    ("step", {"step_size": 3, "gamma": 0.5}),
    ("multistep", {"milestones": [2, 2, 7], "gamma": 0.3}),
    ("exponential", {"gamma": 0.9}),
    ("cosine_annealing", {"T_max": 8, "eta_min": 0.01}),
    ("cosine_warm_restarts", {"T_0": 3, "T_mult": 2, "eta_min": 0.01}),
    ("cosine_warm_restarts", {"T_0": 4}),
    ("one_cycle", {"max_lr": 0.2, "total_steps": STEPS}),
    ("one_cycle", {"max_lr": 0.2, "total_steps": STEPS, "three_phase": True, "pct_start": 0.4, "anneal_strategy": "linear"}),
    ("cyclic", {"base_lr": 0.01, "max_lr": 0.1, "step_size_up": 4, "step_size_down": 3, "mode": "triangular2"}),
    ("cyclic", {"base_lr": 0.01, "max_lr": 0.1, "step_size_up": 3, "mode": "exp_range", "gamma": 0.9}),
    ("cyclic", {"base_lr": 0.01, "max_lr": 0.1, "step_size_up": 3, "cycle_momentum": False}),
    ("reduce_on_plateau", {"factor": 0.5, "patience": 1, "cooldown": 1}),
    ("reduce_on_plateau", {"mode": "max", "factor": 0.5, "patience": 0, "threshold_mode": "abs", "threshold": 0.05, "min_lr": 0.02}),
]
CLASSES = {"step": "StepLR", "multistep": "MultiStepLR", "exponential": "ExponentialLR", "cosine_annealing": "CosineAnnealingLR",
           "cosine_warm_restarts": "CosineAnnealingWarmRestarts", "one_cycle": "OneCycleLR", "cyclic": "CyclicLR",
           "reduce_on_plateau": "ReduceLROnPlateau"}


def run(kind, options):
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1, momentum=0.9)
    schedule = getattr(torch.optim.lr_scheduler, CLASSES[kind])(optimizer, **options)
    lrs, momenta = [], []
    for step in range(STEPS):
        lrs.append(optimizer.param_groups[0]["lr"])
        momenta.append(optimizer.param_groups[0]["momentum"])
        if step + 1 == STEPS:
            break
        optimizer.step()
        schedule.step(METRICS[step]) if kind == "reduce_on_plateau" else schedule.step()
    return {"type": kind, "options": options, "lrs": lrs, "momentum": momenta}


out = pathlib.Path(__file__).parents[3] / "data" / "schedule_reference.json"
out.write_text(json.dumps({"base_lr": 0.1, "metrics": METRICS, "cases": [run(*case) for case in CASES]}) + "\n")
