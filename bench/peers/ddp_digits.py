"""The peer: PyTorch's DistributedDataParallel on the digits MLP, as torchrun starts it. Prints one JSON line per event with its wall time.

Environment: BENCH_STEPS, BENCH_DATA, BENCH_SAVE (folder; "" = no checkpoints), BENCH_SAVE_EVERY, BENCH_REPORT_EVERY.
"""

import json
import os
import time

import numpy
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel


def say(event, **fields):
    if int(os.environ["RANK"]) == 0:
        print(json.dumps({"event": event, "time": time.time(), **fields}), flush=True)


def main():
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    rank, world = dist.get_rank(), dist.get_world_size()
    torch.manual_seed(7 + rank)
    table = numpy.loadtxt(os.environ["BENCH_DATA"], delimiter=",", dtype=numpy.float32)
    inputs, targets = torch.from_numpy(table[:, :-1] / 16), torch.from_numpy(table[:, -1]).long()
    inputs, targets = inputs[rank::world], targets[rank::world]
    model = DistributedDataParallel(torch.nn.Sequential(
        torch.nn.Linear(64, 256), torch.nn.ReLU(), torch.nn.Linear(256, 256), torch.nn.ReLU(), torch.nn.Linear(256, 10)))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.002, fused=True)
    steps, report, every = (int(os.environ[k]) for k in ("BENCH_STEPS", "BENCH_REPORT_EVERY", "BENCH_SAVE_EVERY"))
    save = os.environ.get("BENCH_SAVE", "")
    path, step = os.path.join(save, "checkpoint.pt"), 0
    if save and os.path.exists(path):
        state = torch.load(path, weights_only=True)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        step = state["step"]
    batch = 32
    while step < steps:
        order = torch.randperm(len(inputs))
        for at in range(0, len(order) - batch + 1, batch):
            picked = order[at:at + batch]
            loss = torch.nn.functional.cross_entropy(model(inputs[picked]), targets[picked])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            step += 1
            if step % report == 0:
                say("step", step=step, loss=loss.item())
            if save and step % every == 0 and rank == 0:
                torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step}, path + ".tmp")
                os.replace(path + ".tmp", path)
            if step >= steps:
                break
    say("end", step=step)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
