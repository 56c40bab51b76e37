#!/usr/bin/env python3
"""Measures Athanor against its bars, side by side with torchrun and DistributedDataParallel where there is a peer.

    bench/run.py [--build build/release] [--only NAME]... [--quick] [--out FILE] [--list]

With --only the other items of the file stay as they are.

Writes JSON with the machine, the commit, the settings, every raw sample, and the verdict on each bar; bench/render.py makes the
table of docs/performance.md from it. Absolute times on a shared machine mean little: read the ratios.
"""

import argparse
import datetime
import json
import os
import pathlib
import platform
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))

import sharding  # noqa: E402
import training  # noqa: E402
from local_cluster import ClusterError, LocalCluster, poll  # noqa: E402

DIGITS = ROOT / "examples/data/digits/digits.csv"
PEER = ROOT / "bench/peers/ddp_digits.py"


def program(bench, name, **settings):
    done = subprocess.run([str(bench.build / "bench" / name), json.dumps(settings)], capture_output=True, text=True, timeout=580)
    if done.returncode != 0:
        raise RuntimeError(f"{name}: {done.stderr.strip()}")
    return json.loads(done.stdout)


def job_spec(name, steps, log_interval=1, save_every=10**9):
    return {"name": name, "task": {"name": "digits_mlp", "options": {"data": str(DIGITS)}}, "resources": {"ranks": 2},
            "runner": {"seed": 7, "steps": steps, "log_interval": log_interval, "optim": {"type": "adamw", "lr": 0.002},
                       "dataloader": {"batch_size": 32}, "evaluate": {"interval": 10**9},
                       "checkpoint": {"interval": save_every, "keep_latest_k": 3}},
            "restart": {"budgets": {"signal": -1, "peer_lost": -1}, "max_generations_without_progress": 50}}


class Bench:
    def __init__(self, build, quick, peers):
        self.build, self.quick, self.peers = build, quick, peers
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="ath-bench-"))

    def rounds(self, full, quick=1):
        return quick if self.quick else full

    def cluster(self, name, **kwargs):
        return LocalCluster(self.build, self.folder / name, **kwargs)

    def write(self, name, spec):
        path = self.folder / f"{name}.json"
        path.write_text(json.dumps(spec))
        return path

    # ---- ours: step lines of rank 0 with their wall times ----
    @staticmethod
    def steps(cluster, job, generation=None):
        found = []
        for path in sorted(cluster.folder.rglob(f"{job}/gen-*/rank-00000.log")):
            if generation is not None and not path.parent.name.endswith(f"{generation:04d}"):
                continue
            for line in path.read_text(errors="replace").splitlines():
                match = re.match(r"(\S+)Z INFO athanor-trainer Step .*step=(\d+) ", line)
                if match:
                    when = datetime.datetime.fromisoformat(match[1]).replace(tzinfo=datetime.timezone.utc)
                    found.append((when.timestamp(), int(match[2])))
        return found

    # ---- the peer ----
    def torchrun(self, steps, report=1, save="", save_every=10**9, restarts=0):
        env = {**os.environ, "BENCH_STEPS": str(steps), "BENCH_DATA": str(DIGITS), "BENCH_SAVE": save, "BENCH_SAVE_EVERY": str(save_every),
               "BENCH_REPORT_EVERY": str(report), "OMP_NUM_THREADS": "1"}
        argv = [str(ROOT / ".venv/bin/python"), "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2",
                "--monitor-interval=0.1", f"--max-restarts={restarts}", str(PEER)]
        return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=env)


def events_of(process):
    events = []
    for line in process.stdout:
        if line.startswith("{"):
            events.append(json.loads(line))
    process.wait(60)
    return events


def submit(bench):
    with bench.cluster("submit", agents=0) as cluster:
        serial = program(bench, "bench_submit_load", server=cluster.address, calls=bench.rounds(500, 50), clients=1)
        crowd = program(bench, "bench_submit_load", server=cluster.address, calls=bench.rounds(4000, 200), clients=8)
    return {"serial": serial["latency"], "serial_per_second": serial["per_second"], "eight_clients": crowd["latency"],
            "eight_clients_per_second": crowd["per_second"],
            "bars": [bar("submit, durable: p99", serial["latency"]["p99_ms"], 20, "ms")]}


def first_step(bench):
    ours, peer = [], []
    with bench.cluster("first") as cluster:
        for index in range(bench.rounds(5)):
            began = time.time()
            job = cluster.submit(bench.write("first", job_spec(f"first-{index}", 5)))
            cluster.wait_job(job)
            ours.append(bench.steps(cluster, job)[0][0] - began)
            began = time.time()
            peer.append(next(e for e in events_of(bench.torchrun(5)) if e["event"] == "step")["time"] - began)
    return {"ours_seconds": ours, "torchrun_seconds": peer, "ratio": statistics.median(peer) / statistics.median(ours),
            "bars": [bar("submit to first step", statistics.median(ours), 1.0, "s")]}


def recovery(bench):
    ours, peer = [], []
    with bench.cluster("recovery") as cluster:
        for index in range(bench.rounds(5)):
            job = cluster.submit(bench.write("recovery", job_spec(f"recovery-{index}", 10**7, save_every=100)))
            cluster.wait_event(job, "CheckpointCommitted", count=3)
            killed = time.time()
            cluster.kill_rank(job, 1)
            poll(lambda: bench.steps(cluster, job, generation=2), 60, "a step after the restart")
            ours.append(bench.steps(cluster, job, generation=2)[0][0] - killed)
            cluster.cli("job", "cancel", job, "--wait")
            peer.append(peer_recovery(bench, index))
    back = [seconds for seconds in peer if seconds is not None]
    return {"ours_seconds": ours, "torchrun_seconds": peer, "torchrun_hangs": len(peer) - len(back),
            "ratio": statistics.median(back) / statistics.median(ours) if back else None,
            "bars": [bar("SIGKILL to next step", statistics.median(ours), 1.2, "s")]}


def peer_recovery(bench, index):
    save = bench.folder / f"peer-{index}"
    save.mkdir()
    process = bench.torchrun(10**7, report=20, save=str(save), save_every=100, restarts=3)
    events = []
    threading.Thread(target=read_into, args=(events, process.stdout), daemon=True).start()
    try:
        poll(lambda: (save / "checkpoint.pt").exists() and len(events) > 5, 60, "the peer's checkpoint")
        children = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True).stdout.split()
        ranks = [pid for pid in children if b"ddp_digits" in pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()]
        reached, killed = len(events), time.time()
        os.kill(int(ranks[-1]), signal.SIGKILL)

        def again():  # the survivor may go on for a moment; a restart goes back to the checkpoint
            return [b for a, b in zip(events[reached - 1:], events[reached:]) if b["step"] <= a["step"]]
        return poll(again, 90, "the peer's first step after its restart")[0]["time"] - killed
    except ClusterError:
        return None  # it hangs now and then: the store of the old group is still named
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()


def read_into(events, stream):
    for line in stream:
        if line.startswith("{"):
            events.append(json.loads(line))


def coordinator_restart(bench):
    cluster = bench.cluster("restart", agents=0)
    jobs, checkpoints = (10000, 100000) if not bench.quick else (200, 2000)
    cluster.data_dir.mkdir(parents=True, mode=0o700)
    fill = program(bench, "bench_store_fill", directory=str(cluster.data_dir), jobs=jobs, checkpoints=checkpoints)
    seconds = []
    with cluster:
        for _ in range(bench.rounds(5)):
            cluster.coordinator.kill()
            began = time.monotonic()
            cluster.start_coordinator()
            cluster.cli("job", "list", parse=True)
            seconds.append(time.monotonic() - began)
    return {"store": fill, "seconds": seconds, "bars": [bar("coordinator kill to serving", statistics.median(seconds), 1.0, "s")]}


def checkpoint_stall(bench):
    found = program(bench, "bench_checkpoint_stall", directory=str(bench.folder / "stall"), megabytes=256 if not bench.quick else 16,
                    rounds=bench.rounds(9, 3))
    ratio = statistics.median(found["save_seconds"]) / statistics.median(found["memcpy_seconds"])
    return {**found, "ratio": ratio, "bars": [bar("checkpoint stall / memcpy of the same bytes", ratio, 1.5, "x")]}


def swarm(bench, agents):
    with bench.cluster(f"agents-{agents}", agents=0) as cluster:
        found = program(bench, "bench_agent_swarm", server=cluster.address, pid=cluster.coordinator.popen.pid, agents=agents,
                        channels=16, seconds=15 if not bench.quick else 3)
    lost = agents - found["workers_by_state"].get("READY", 0) + found["sessions_lost"]
    return {**found, "bars": [bar(f"{agents} agents: coordinator's cores", found["coordinator_cores"], 1.0, "cores"),
                              bar(f"{agents} agents: memory", found["coordinator_rss_bytes"] / 1e6, 600, "MB"),
                              bar(f"{agents} agents: declared dead", lost, 0, "")]}


def ddp(bench):
    steps, ours, peer = (6000, [], []) if not bench.quick else (400, [], [])
    with bench.cluster("ddp", agents=1) as cluster:
        for index in range(bench.rounds(5)):
            job = cluster.submit(bench.write("ddp", job_spec(f"ddp-{index}", steps, log_interval=steps // 20)))
            cluster.wait_job(job, timeout=240)
            ours.append(rate(bench.steps(cluster, job)))
            reports = [e for e in events_of(bench.torchrun(steps, report=steps // 20)) if e["event"] == "step"]
            peer.append(rate([(e["time"], e["step"]) for e in reports]))
    ratio = statistics.median(a / b for a, b in zip(ours, peer))
    return {"ours_samples_per_second": ours, "peer_samples_per_second": peer, "ratio": ratio,
            "bars": [bar("DDP samples per second / Python's", ratio, 1.3, "x", at_least=True)]}


def rate(points):
    """Samples per second over all reports but the first, two ranks of 32."""
    (first, low), (last, high) = points[0], points[-1]
    return (high - low) * 64 / (last - first)


def loop(bench):
    found = program(bench, "bench_loop_overhead", steps=2000 if not bench.quick else 200, rounds=bench.rounds(7))
    return {**found, "ratio": statistics.median(r / b for r, b in zip(found["runner_steps_per_second"], found["bare_steps_per_second"])),
            "bars": []}


def nested(bench):
    """Forward and backward against the padded batch (with and without a mask on the result), forward against ATen's nested tensors, peak memory."""
    grid = [(batch, lengths, 0.5) for batch in (8, 32, 128) for lengths in ("uniform", "long_tailed", "bimodal")]
    found, bars, memory = [], [], []
    for batch, lengths, padding in grid + [(32, "uniform", 0.25), (32, "uniform", 0.75)]:
        one = program(bench, "bench_nested_tensor", batch=batch, lengths=lengths, padding=padding, rounds=bench.rounds(30))
        ratios = {}
        for name, times in one["operations"].items():
            def faster(theirs, ours):
                return min(times[theirs]) / min(times[ours])  # other processes only ever add time, and the linear's ratio is 2 at best
            peak = times["peak_bytes"]
            ratios[name] = {"of_padded": faster("padded", "ours"), "of_padded_bare": faster("padded_bare", "ours"), "of_aten": faster("aten_forward", "ours_forward"),
                            "memory_of_padded": peak["ours"] / peak["padded"], "memory_of_needed": peak["ours"] / peak["needed"]}
            memory.append(ratios[name]["memory_of_needed"])
            if (batch, lengths, padding) == (32, "uniform", 0.5):
                bars.append(bar(f"nested tensors, {name}: speed / padded, half of it padding", ratios[name]["of_padded"], 2, "x", at_least=True))
                # Both call the same kernel on the same numbers: equal, but for the noise of a shared machine.
                bars.append(bar(f"nested tensors, {name}: forward speed / ATen's nested tensors", ratios[name]["of_aten"], 0.9, "x", at_least=True))
        found.append({"batch": batch, "lengths": lengths, "padding": padding, **one, "ratios": ratios})
    bars.append(bar("nested tensors: peak memory / what the packed values need, the worst case", max(memory), 1.01, "x"))
    return {"settings": found, "bars": bars}


def image_loader(bench):
    """512 JPEGs of 500 x 375 through decoding, random crop to 224, flip and normalisation; two workers."""
    folder, count = bench.folder / "photos", 64 if bench.quick else 512
    make = ("import sys, pathlib, numpy; from PIL import Image; random = numpy.random.default_rng(1)\n"
            "for i in range(int(sys.argv[2])):\n"
            "    path = pathlib.Path(sys.argv[1]) / str(i % 4) / f'{i}.jpg'; path.parent.mkdir(parents=True, exist_ok=True)\n"
            "    small = Image.fromarray(random.integers(0, 255, (24, 32, 3), dtype=numpy.uint8))\n"
            "    small.resize((500, 375), Image.BICUBIC).save(path, quality=90)\n")
    subprocess.run([bench.peers, "-c", make, str(folder), str(count)], check=True)
    ours, peer = [], []
    for _ in range(bench.rounds(3)):
        found = program(bench, "bench_image_loader", folder=str(folder), workers=2, batch_size=32, epochs=3)
        ours.append(max(found["images_per_second"]))
        done = subprocess.run([bench.peers, str(ROOT / "bench/peers/image_loader.py"), str(folder), "2", "32", "3"], capture_output=True,
                              text=True, check=True, timeout=300)
        peer.append(max(json.loads(done.stdout)["images_per_second"]))
    ratio = statistics.median(a / b for a, b in zip(ours, peer))
    return {"ours_images_per_second": ours, "peer_images_per_second": peer, "ratio": ratio,
            "bars": [bar("images per second / torch DataLoader's", ratio, 3, "x", at_least=True)]}


def training_item(bench):
    found = training.measure(bench.build, bench.peers, bench.rounds(2), bench.quick)
    return {**found, "bars": training.bars(found, bar)}


def sharding_item(bench):
    rows = sharding.measure(bench.build, bench.peers, bench.rounds(3), 30 if not bench.quick else 5)
    return {"rows": rows, "bars": sharding.bars(rows, bar)}


def bar(name, value, limit, unit, at_least=False):
    return {"name": name, "value": value, "bar": limit, "unit": unit, "at_least": at_least,
            "holds": value >= limit if at_least else value <= limit}


ITEMS = {"submit": submit, "first_step": first_step, "recovery": recovery, "coordinator_restart": coordinator_restart,
         "checkpoint_stall": checkpoint_stall, "agents_1000": lambda b: swarm(b, 1000 if not b.quick else 100),
         "agents_10000": lambda b: swarm(b, 10000 if not b.quick else 300), "ddp": ddp, "loop": loop, "nested": nested, "training": training_item,
         "sharding": sharding_item,
         "image_loader": image_loader}


def machine():
    model = re.search(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text())
    memory = re.search(r"MemTotal:\s*(\d+)", pathlib.Path("/proc/meminfo").read_text())
    return {"cpu": model[1] if model else platform.processor(), "cores": os.cpu_count(), "memory_gib": round(int(memory[1]) / 2**20, 1),
            "kernel": platform.release()}


def git(*args):
    return subprocess.run(["git", *args], cwd=ROOT, capture_output=True, text=True).stdout.strip()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build/release")
    parser.add_argument("--only", choices=ITEMS, action="append")
    parser.add_argument("--peers", default=sys.executable, help="Python with bench/peers/requirements.txt, for the item training")
    parser.add_argument("--quick", action="store_true", help="small and short: shows that it works, not how fast")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "bench/results/latest.json")
    parser.add_argument("--list", action="store_true")
    args = parser.parse_args()
    if args.list:
        return print("\n".join(ITEMS))
    bench = Bench(args.build.resolve(), args.quick, args.peers)
    report = {"machine": machine(), "commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain")), "quick": args.quick,
              "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"), "load_before": os.getloadavg()[0], "items": {}}
    failed = 0
    for name in args.only or ITEMS:
        print(f"== {name}", flush=True)
        try:
            report["items"][name] = ITEMS[name](bench)
        except Exception as error:  # one item must not cost the others
            report["items"][name] = {"error": str(error), "bars": []}
            failed += 1
            print(f"   failed: {error}", flush=True)
        for one in report["items"][name]["bars"]:
            print(f"   {'holds' if one['holds'] else 'FAILS'}  {one['name']}: {one['value']:.3g} {one['unit']} (bar {one['bar']})", flush=True)
    if args.only and args.out.exists():  # the items not asked for stay as they were measured
        report["items"] = {**json.loads(args.out.read_text())["items"], **report["items"]}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(report, indent=1) + "\n")
    print(f"written: {args.out}")
    subprocess.run(["rm", "-rf", str(bench.folder)], check=False)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
