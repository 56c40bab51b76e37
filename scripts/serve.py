#!/usr/bin/env python3
"""A coordinator and agents on this machine, until Ctrl-C: `make serve`."""

import argparse
import pathlib
import signal

from local_cluster import LocalCluster


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", default="build/release")
    parser.add_argument("--folder", default="build/serve", help="state and logs; kept between runs")
    parser.add_argument("--agents", type=int, default=2)
    parser.add_argument("--slots", type=int, default=2, help="ranks that one agent runs at once")
    parser.add_argument("--port", type=int, default=7070)
    args = parser.parse_args()

    cluster = LocalCluster(args.build, args.folder, agents=args.agents, slots=args.slots, lease="10s")
    cluster._address = f"127.0.0.1:{args.port}"
    with cluster:
        cli = cluster.program("athanor")
        print(f"coordinator  {cluster.address}   metrics http://127.0.0.1:{cluster.coordinator.ports['metrics']}/metrics")
        print(f"agents       {', '.join(cluster.agents)}   logs in {pathlib.Path(args.folder).resolve()}")
        print(f"try          {cli} job submit examples/jobs/digits.yaml --watch")
        print("Ctrl-C stops everything.", flush=True)
        try:
            signal.sigwait({signal.SIGINT, signal.SIGTERM})
        except KeyboardInterrupt:
            pass
        print("stopping …", flush=True)


if __name__ == "__main__":
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    main()
