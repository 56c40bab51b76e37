#!/usr/bin/env python3
"""Makes the table of docs/performance.md from bench/results/latest.json; --check says whether it is current."""

import json
import pathlib
import statistics
import sys

ROOT = pathlib.Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs/performance.md"
BEGIN, END = "<!-- table: bench/render.py -->\n", "<!-- end -->\n"


def number(value):
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def trainers(item):
    """Ours beside each trainer: rate, start-up and memory, as ratios."""
    rows = []
    for workload, one in item.items():
        if not isinstance(one, dict) or "ratios" not in one:
            continue
        cells = [f"{number(r['rate'])} / {number(r['start'])} / {number(r['memory'])}" for r in one["ratios"].values()]
        if not rows:
            rows = ["", "Ours beside other trainers: rate of ours / start-up of theirs / peak memory of ours, as multiples (large, large and small are good).",
                    "", f"| workload | {' | '.join(one['ratios'])} |", f"|---|{'---|' * len(cells)}"]
        rows.append(f"| {workload} | {' | '.join(cells)} |")
    return rows


def nested(item):
    """NestedTensor beside the padded batch and ATen's nested tensors, a row for each setting."""
    settings = item.get("settings", [])
    if not settings:
        return []
    names = list(settings[0]["ratios"])
    rows = ["", "Nested tensors: speed of forward and backward beside the padded batch with a mask on the result / without one, speed of forward beside ATen's nested "
            "tensors (large is good), peak memory of the padded batch's (small is good).",
            "", f"| batch, lengths, padding | {' | '.join(names)} |", f"|---|{'---|' * len(names)}"]
    for one in settings:
        cells = [" / ".join(number(r[key]) for key in ("of_padded", "of_padded_bare", "of_aten", "memory_of_padded")) for r in one["ratios"].values()]
        rows.append(f"| {one['batch']}, {one['lengths'].replace('_', '-')}, {1 - one['occupancy']:.0%} | {' | '.join(cells)} |")
    return rows


def table(report):
    machine = report["machine"]
    lines = [f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB, {report['date'][:10]}, commit {report['commit'][:10]}"
             f"{', with local changes' if report['dirty'] else ''}; load before: {report['load_before']:.1f}.", "",
             "| what | measured | bar | holds |", "|---|---|---|---|"]
    for item in report["items"].values():
        for bar in item["bars"]:
            sign = ">=" if bar["at_least"] else "<="
            lines.append(f"| {bar['name']} | {number(bar['value'])} {bar['unit']} | {sign} {bar['bar']} {bar['unit']} | {'yes' if bar['holds'] else '**no**'} |")
    items = report["items"]
    extra = []
    if "ratio" in items.get("first_step", {}):
        extra.append(f"torchrun needs {number(items['first_step']['ratio'])} times as long to its first step ({number(statistics.median(items['first_step']['torchrun_seconds']))} s)")
    if items.get("recovery", {}).get("ratio"):
        recovery = items["recovery"]
        back = [s for s in recovery["torchrun_seconds"] if s is not None]
        hangs = f", and was not back after 90 s in {recovery['torchrun_hangs']} of {len(recovery['torchrun_seconds'])}" if recovery["torchrun_hangs"] else ""
        extra.append(f"and {number(recovery['ratio'])} times as long from a SIGKILL to the next step ({number(statistics.median(back))} s, --monitor-interval=0.1{hangs})")
    if "eight_clients_per_second" in items.get("submit", {}):
        extra.append(f"eight clients submit {number(items['submit']['eight_clients_per_second'])} durable jobs a second (p99 {number(items['submit']['eight_clients']['p99_ms'])} ms)")
    if "ratio" in items.get("loop", {}):
        extra.append(f"the runner's loop keeps {items['loop']['ratio'] * 100:.0f} % of the steps per second of a hand-written LibTorch loop")
    lines += trainers(items.get("training", {}))
    lines += nested(items.get("nested", {}))
    if extra:
        lines += ["", "Beside the bars: " + "; ".join(extra) + "."]
    return "\n".join(lines) + "\n"


def main():
    report = json.loads((ROOT / "bench/results/latest.json").read_text())
    page = PAGE.read_text()
    head, rest = page.split(BEGIN)
    tail = rest.split(END)[1]
    wanted = head + BEGIN + table(report) + END + tail
    if "--check" in sys.argv:
        if wanted != page:
            sys.exit("docs/performance.md is not what bench/results/latest.json says: run bench/render.py")
        return
    PAGE.write_text(wanted)


if __name__ == "__main__":
    main()
