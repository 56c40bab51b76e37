#!/usr/bin/env python3
"""`make demo`: a real data-parallel job through a real coordinator; one rank is killed half way; it recovers and finishes."""

import argparse
import os
import re
import signal
import subprocess
import sys
import threading
import time

from local_cluster import ROOT, LocalCluster, poll

ACCURACY = 0.97


def say(text):
    print(f"\n== {text}", flush=True)


def kill_half_way(cluster, job, report):
    """Waits until a checkpoint is committed and half of the steps are done, then kills rank 1 and times the recovery."""
    def half():
        progress = cluster.job(job).get("progress", {})
        total = int(progress.get("totalSteps", 0))
        committed = any(c.get("state") == "COMMITTED" for c in cluster.checkpoints(job))
        return int(progress.get("step", 0)) if total and committed and int(progress.get("step", 0)) >= total // 2 else 0
    report["step"] = poll(half, 90, "half of the training", interval=0.1)
    report["pid"] = cluster.kill_rank(job, 1, signal.SIGKILL)
    report["killed_at"] = time.time()


def event_seconds(event):
    from datetime import datetime
    text = re.sub(r"(\.\d{6})\d+", r"\1", event["time"]).replace("Z", "+00:00")
    return datetime.fromisoformat(text).timestamp()


def show_recovery(cluster, job, report):
    say(f"what happened after SIGKILL of rank 1 (process {report['pid']}) near step {report['step']}")
    wanted = {"RankFailed", "GenerationFailed", "RestartDecided", "Placed", "GenerationTraining", "Resumed", "Recovered"}
    for event in cluster.events(job):
        after = event_seconds(event) - report["killed_at"]
        if event.get("type") in wanted and -0.5 < after < 30:
            print(f"  {after:+7.3f} s  {event['type']:<18} {event.get('message', '')}")


def show_metrics(cluster):
    say("a few of the Prometheus metrics")
    _, text = cluster.scrape()
    wanted = r"athanor_(jobs|generations_total|job_restarts_total|recovery_seconds_(sum|count)|checkpoint_bytes_total|goodput_seconds)"
    for line in text.splitlines():
        if re.match(wanted, line):
            print("  " + line)


def final_accuracy(job):
    metrics = job.get("progress", {}).get("metrics", {})
    return max((value for name, value in metrics.items() if name == "test.accuracy"), default=None)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", default="build/release")
    args = parser.parse_args()
    started = time.monotonic()
    with LocalCluster(args.build, agents=2, slots=1) as cluster:
        say(f"coordinator on {cluster.address}, two agents")
        job = cluster.submit("examples/jobs/digits.yaml")
        say(f"submitted {job}: 2 ranks, data parallel")
        report = {}
        killer = threading.Thread(target=kill_half_way, args=(cluster, job, report), daemon=True)
        killer.start()
        watch = subprocess.run([cluster.program("athanor"), "--server", cluster.address, "job", "watch", job], timeout=240,
                               env=os.environ)
        killer.join(timeout=5)
        if "pid" not in report or report["pid"] is None:
            sys.exit("demo: the job ended before a rank could be killed")
        show_recovery(cluster, job, report)
        say("checkpoints and their aliases")
        print(cluster.cli("checkpoint", "list", job).stdout, end="")
        show_metrics(cluster)
        final = cluster.job(job)
        accuracy = final_accuracy(final)
        restarts = sum(int(n) for n in final.get("restartsByCause", {}).values())
    say(f"{job}: {final['state']}, {restarts} restart, test accuracy {accuracy}, {time.monotonic() - started:.1f} s in all")
    if watch.returncode != 0 or final["state"] != "SUCCEEDED" or accuracy is None or accuracy < ACCURACY or restarts < 1:
        sys.exit(f"demo: expected SUCCEEDED after one restart with accuracy >= {ACCURACY}")


if __name__ == "__main__":
    main()
