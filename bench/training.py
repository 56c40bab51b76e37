"""Trainers on the same workloads, two ranks of one thread over loopback: ours, DDP, Lightning, Accelerate, DanLing.

Every round runs all of them once, one after the other; ratios are taken within a round, and their median is reported.
"""

import json
import os
import pathlib
import socket
import statistics
import subprocess
import tempfile
import time

PEER = pathlib.Path(__file__).resolve().parent / "peers/workloads.py"
TRAINERS = ("ddp", "lightning", "accelerate", "danling")
# steps, samples of a batch, samples -> units of the rate
WORKLOADS = {"digits": (1500, 32, 1), "cnn": (120, 32, 1), "gpt": (60, 16, 64), "mlp20m": (60, 32, 1)}
BARS = {"digits": 2.5, "cnn": 1.1, "gpt": 1.1, "mlp20m": 1.4}


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def summary(began, events, batch, unit):
    """Of one run: launch to first step, rate between the first and the last tenth of rank 0, largest peak of a rank."""
    of_main = [e for e in events if e.get("rank", 0) == 0]
    points = [(e["time"], e["step"]) for e in of_main if e["event"] == "point"]
    (start, low), (stop, high) = points[0], points[-1]
    return {"start_seconds": next(e["time"] for e in of_main if e["event"] == "first") - began,
            "rate": (high - low) * 2 * batch * unit / (stop - start),
            "peak_mb": max(e["peak_mb"] for e in events if e["event"] == "end")}


def run_ours(build, workload, steps, batch, unit, runner=None):
    def start(**more):
        settings = {"workload": workload, "steps": steps, "batch_size": batch, "world": 2, "runner": runner or {}, **more}
        return subprocess.Popen([str(build / "bench/bench_train_workload"), json.dumps(settings)], stdout=subprocess.PIPE, text=True)
    began = time.time()
    first = start(rank=0)
    port = json.loads(first.stdout.readline())["port"]
    second = start(rank=1, port=port)
    outputs = [one.communicate(timeout=300)[0] for one in (first, second)]
    if first.returncode or second.returncode:
        raise RuntimeError(f"bench_train_workload {workload} failed")
    events = [dict(json.loads(line), rank=rank) for rank, text in enumerate(outputs) for line in text.splitlines()]
    return summary(began, events, batch, unit)


def run_peer(python, trainer, workload, steps, batch, unit):
    with tempfile.NamedTemporaryFile() as file:
        began = time.time()
        done = subprocess.run([str(python), "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", str(free_port()), str(PEER),
                               trainer, workload, str(steps), str(batch)], capture_output=True, text=True, timeout=300,
                              env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "BENCH_EVENTS": file.name})
        events = [json.loads(line) for line in file]
    if sum(e["event"] == "end" for e in events) < 2:  # some abort when they take their process group down: that is after the work
        raise RuntimeError(f"{trainer} {workload}: {done.stderr[-400:]}")
    return summary(began, events, batch, unit)


def measure(build, python, rounds, quick):
    found = {}
    for workload, (steps, batch, unit) in WORKLOADS.items():
        steps = max(steps // 10, 20) if quick else steps
        runs = {name: [] for name in ("athanor", *TRAINERS)}
        for _ in range(rounds):
            runs["athanor"].append(run_ours(build, workload, steps, batch, unit))
            for trainer in TRAINERS:
                runs[trainer].append(run_peer(python, trainer, workload, steps, batch, unit))
        ratios = {}
        for trainer in TRAINERS:
            pairs = list(zip(runs["athanor"], runs[trainer]))
            ratios[trainer] = {"rate": statistics.median(a["rate"] / b["rate"] for a, b in pairs),
                               "start": statistics.median(b["start_seconds"] / a["start_seconds"] for a, b in pairs),
                               "memory": statistics.median(a["peak_mb"] / b["peak_mb"] for a, b in pairs)}
        found[workload] = {"steps": steps, "batch_size": batch, "runs": runs, "ratios": ratios}
    return found


def bars(found, bar):
    named = []
    for workload, one in found.items():
        ratios = one["ratios"]["ddp"]
        named.append(bar(f"{workload}: rate / DDP's", ratios["rate"], BARS[workload], "x", at_least=True))
        named.append(bar(f"{workload}: start-up, DDP's / ours", ratios["start"], 5, "x", at_least=True))
        named.append(bar(f"{workload}: peak memory of a rank / DDP's", ratios["memory"], 0.6, "x"))
    return named
