#!/usr/bin/env python3
"""Makes an offline Weights & Biases run of a run that was trained with `jsonl: true`.

    pip install wandb
    scripts/wandb_import.py RUN_FOLDER --project digits        # prints the folder that `wandb sync` takes

Nothing is sent anywhere. For a step that was trained twice (a run that went back to a checkpoint) the later line counts.
"""

import argparse
import json
import pathlib
import sys


def read_rows(path):
    """{step: {name: value}} of metrics.jsonl, in the order of the steps. A last line that a crash cut off is left out."""
    rows = {}
    lines = path.read_text().splitlines()
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            step = int(row.pop("step"))
        except (ValueError, KeyError, AttributeError) as error:
            if number == len(lines):
                break
            raise SystemExit(f"{path}: line {number} is not a row of metrics: {error}") from None
        row.pop("time", None)
        rows.setdefault(step, {}).update(row)
    return dict(sorted(rows.items()))


def read_config(folder):
    import yaml  # comes with wandb

    path = folder / "metadata" / "config.full.yaml"
    return yaml.safe_load(path.read_text()) if path.is_file() else {}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=pathlib.Path, help="folder of the run, which holds metrics.jsonl")
    parser.add_argument("--project", help="default: athanor", default="athanor")
    parser.add_argument("--name", help="default: the folder's name")
    parser.add_argument("--out", type=pathlib.Path, help="where the wandb folder is made (default: the run's folder)")
    arguments = parser.parse_args()
    source = arguments.run / "metrics.jsonl"
    if not source.is_file():
        raise SystemExit(f"{source}: not there; train with `jsonl: true`")
    rows = read_rows(source)
    try:
        import wandb
    except ImportError:
        raise SystemExit("the wandb package is missing: pip install wandb") from None
    run = wandb.init(project=arguments.project, name=arguments.name or arguments.run.resolve().name, mode="offline",
                     dir=str(arguments.out or arguments.run), config=read_config(arguments.run),
                     settings=wandb.Settings(console="off", disable_git=True, x_disable_stats=True, silent=True))
    for step, row in rows.items():
        run.log({name.replace(".", "/", 1): value for name, value in row.items() if value is not None}, step=step)
    folder = pathlib.Path(run.dir).parent
    run.finish()
    print(folder)


if __name__ == "__main__":
    sys.exit(main())
