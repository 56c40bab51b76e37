#!/usr/bin/env python3
"""A model divided over two ranks of one thread: our levels against our replicas, Python's DDP and Python's fully_shard.

    bench/sharding.py [--build build/release] [--python PYTHON] [--rounds 3] [--steps 30] [--without-peers]

Every round runs all of them once, one after the other; ratios are taken within a round, and their median is printed. Absolute times on
a shared machine mean little.
"""

import argparse
import json
import pathlib
import statistics
import sys

import training

ROOT = pathlib.Path(__file__).resolve().parents[1]
UNITS = {"gpt": ["0.blocks.*"], "mlp20m": ["0", "2", "4", "6"]}


def divided(workload, shard, **more):
    return {"stack": "parallel", "fsdp": {"enabled": True, "shard": shard, "units": UNITS[workload], **more}}


def trainers(workload):
    return {"replicas": {}, "parameters": divided(workload, "parameters"), "parameters, kept": divided(workload, "parameters", reshard_after_forward=False),
            "gradients": divided(workload, "gradients"), "optimizer": divided(workload, "optimizer")}


def measure(build, python, rounds, steps, batch=32, peers=("ddp", "fsdp")):
    """Rows of {workload, trainer, of_replicas, of_fully_shard, samples_per_second, peak_mb}."""
    rows = []
    for workload in UNITS:
        runs = {}
        for _ in range(rounds):
            for name, runner in trainers(workload).items():
                runs.setdefault(name, []).append(training.run_ours(build, workload, steps, batch, 1, runner=runner))
            for peer in peers:
                runs.setdefault(f"Python's {peer}", []).append(training.run_peer(python, peer, workload, steps, batch, 1))

        def of(found, other):
            return round(statistics.median(a["rate"] / b["rate"] for a, b in zip(found, runs[other])), 3) if other in runs else None

        for name, found in runs.items():
            rows.append({"workload": workload, "trainer": name, "of_replicas": of(found, "replicas"), "of_fully_shard": of(found, "Python's fsdp"),
                         "samples_per_second": round(statistics.median(one["rate"] for one in found), 1),
                         "peak_mb": round(max(one["peak_mb"] for one in found))})
    return rows


def bars(rows, bar):
    found = []
    for row in rows:
        if row["trainer"] == "parameters":
            least = {"gpt": 1.5, "mlp20m": 2}[row["workload"]]
            found.append(bar(f"{row['workload']}, divided parameters: rate / fully_shard's", row["of_fully_shard"], least, "x", at_least=True))
            found.append(bar(f"{row['workload']}, divided parameters: rate / our replicas'", row["of_replicas"], 0.9, "x", at_least=True))
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build/release")
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--without-peers", action="store_true")
    arguments = parser.parse_args()
    peers = () if arguments.without_peers else ("ddp", "fsdp")
    for row in measure(arguments.build, arguments.python, arguments.rounds, arguments.steps, arguments.batch, peers):
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
