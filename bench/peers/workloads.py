"""The peers: PyTorch's DDP, Lightning, Accelerate and DanLing on the workloads of bench/programs/train_workload.cc, as torchrun starts them.

    torchrun --nproc-per-node 2 bench/peers/workloads.py TRAINER WORKLOAD STEPS BATCH_SIZE

Writes the same JSON lines ("first", "point", "end") to the file named by BENCH_EVENTS, else to standard output.
"""

import json
import os
import resource
import sys
import time

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

VOCABULARY, CONTEXT, WIDTH, HEADS, LAYERS = 96, 64, 128, 4, 4
RANK = int(os.environ.get("RANK", "0"))
# Away from what the trainers print themselves.
EVENTS = os.open(os.environ.get("BENCH_EVENTS", "/dev/stdout"), os.O_WRONLY | os.O_APPEND | os.O_CREAT)


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.out = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x):
        n, t, _ = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(n, t, 3, HEADS, WIDTH // HEADS).permute(2, 0, 3, 1, 4).unbind(0)
        seen = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(seen.transpose(1, 2).reshape(n, t, WIDTH))
        return x + self.down(nn.functional.gelu(self.up(self.norm2(x))))


class Gpt(nn.Module):
    def __init__(self):
        super().__init__()
        self.token, self.position = nn.Embedding(VOCABULARY, WIDTH), nn.Embedding(CONTEXT, WIDTH)
        self.blocks = nn.Sequential(*(Block() for _ in range(LAYERS)))
        self.norm, self.head = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, VOCABULARY)

    def forward(self, tokens):
        x = self.token(tokens) + self.position(torch.arange(tokens.shape[1]))
        return self.head(self.norm(self.blocks(x))).flatten(0, 1)


def make_model(workload):
    if workload == "digits":
        return nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10))
    if workload == "cnn":
        return nn.Sequential(nn.Conv2d(1, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
                             nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(3136, 128),
                             nn.ReLU(), nn.Linear(128, 10))
    if workload == "gpt":
        return Gpt()
    return nn.Sequential(nn.Linear(512, 3040), nn.ReLU(), nn.Linear(3040, 3040), nn.ReLU(), nn.Linear(3040, 3040), nn.ReLU(),
                         nn.Linear(3040, 10))


def make_data(workload, batches, batch_size):
    generator = torch.Generator().manual_seed(3)
    samples = batches * batch_size
    if workload == "gpt":
        text = torch.randint(0, VOCABULARY, (samples, CONTEXT + 1), generator=generator)
        return TensorDataset(text[:, :-1].contiguous(), text[:, 1:].contiguous())
    shape = {"digits": (64,), "cnn": (1, 28, 28), "mlp20m": (512,)}[workload]
    return TensorDataset(torch.randn(samples, *shape, generator=generator), torch.randint(0, 10, (samples,), generator=generator))


def loss_of(model, batch):
    return nn.functional.cross_entropy(model(batch[0]), batch[1].flatten())


def make_optimizer(model):
    return torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)


class Events:
    def __init__(self, steps):
        self.step, self.every = 0, max(steps // 10, 1)

    def say(self, **fields):
        os.write(EVENTS, (json.dumps({**fields, "time": time.time()}) + "\n").encode())  # whole lines: the ranks share the file

    def stepped(self):
        self.step += 1
        if self.step == 1:
            self.say(event="first", rank=RANK)
        if self.step % self.every == 0:
            self.say(event="point", step=self.step, rank=RANK)

    def end(self):
        self.say(event="end", step=self.step, rank=RANK, peak_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def train_on_ranks(model, optimizer, data, steps, batch_size, events):
    """The loop of those who write it by hand; ends the process group."""
    import torch.distributed as dist
    from torch.utils.data.distributed import DistributedSampler
    sampler = DistributedSampler(data)
    loader = DataLoader(data, batch_size=batch_size, sampler=sampler)
    while events.step < steps:
        sampler.set_epoch(events.step)
        for batch in loader:
            loss = loss_of(model, batch)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            events.stepped()
            if events.step >= steps:
                break
    events.end()
    dist.destroy_process_group()


def ddp(workload, steps, batch_size, events):
    import torch.distributed as dist
    dist.init_process_group("gloo")
    model = nn.parallel.DistributedDataParallel(make_model(workload))
    optimizer, data = make_optimizer(model), make_data(workload, 64, batch_size)
    train_on_ranks(model, optimizer, data, steps, batch_size, events)


def fsdp(workload, steps, batch_size, events):
    """fully_shard, on the CPU as on CUDA: each block, or each linear layer, is a unit."""
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard
    dist.init_process_group("gloo")
    mesh = init_device_mesh("cpu", (dist.get_world_size(),))
    model = make_model(workload)
    for unit in model.blocks if workload == "gpt" else [m for m in model if isinstance(m, nn.Linear)]:
        fully_shard(unit, mesh=mesh)
    fully_shard(model, mesh=mesh)
    optimizer, data = torch.optim.AdamW(model.parameters(), lr=1e-3), make_data(workload, 64, batch_size)
    train_on_ranks(model, optimizer, data, steps, batch_size, events)


def accelerate(workload, steps, batch_size, events):
    from accelerate import Accelerator
    accelerator = Accelerator(cpu=True)
    model = make_model(workload)
    loader = DataLoader(make_data(workload, 64, batch_size), batch_size=batch_size, shuffle=True)
    model, optimizer, loader = accelerator.prepare(model, make_optimizer(model), loader)
    while events.step < steps:
        for batch in loader:
            with accelerator.accumulate(model):
                loss = loss_of(model, batch)
                accelerator.backward(loss)
                optimizer.step()
                optimizer.zero_grad()
            events.stepped()
            if events.step >= steps:
                break
    events.end()
    accelerator.wait_for_everyone()
    accelerator.end_training()


def lightning(workload, steps, batch_size, events):
    import logging
    import lightning as pl
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)

    class Module(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = make_model(workload)

        def training_step(self, batch, _):
            return loss_of(self.net, batch)

        def configure_optimizers(self):
            return make_optimizer(self.net)

        def on_train_batch_end(self, *_):
            events.stepped()

    trainer = pl.Trainer(accelerator="cpu", devices=int(os.environ.get("WORLD_SIZE", "1")), strategy="ddp", max_steps=steps, max_epochs=-1,
                         logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False)
    trainer.fit(Module(), DataLoader(make_data(workload, 64, batch_size), batch_size=batch_size, shuffle=True))
    events.end()


def danling(workload, steps, batch_size, events):
    import tempfile
    from danling.runners import RunnerConfig, TorchRunner

    class Runner(TorchRunner):
        def __init__(self, config):
            super().__init__(config)
            self.model, self.datasets["train"] = make_model(workload), make_data(workload, 64, batch_size)
            self.criterion = lambda output, target: nn.functional.cross_entropy(output, target.flatten())

        def optimizer_step(self, *args, **kwargs):
            done = super().optimizer_step(*args, **kwargs)
            events.stepped()
            return done

    with tempfile.TemporaryDirectory() as folder:
        config = RunnerConfig({"steps": steps, "seed": 7, "optim": {"type": "adamw", "lr": 1e-3, "fused": True},
                               "dataloader": {"batch_size": batch_size}, "ckpt": {"enabled": False}, "workspace": {"root": folder},
                               "logging": {"enabled": False}, "dist": {"backend": "gloo"}})
        Runner(config).train()
    events.end()


def main():
    trainer, workload, steps, batch_size = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    torch.set_num_threads(1)
    torch.manual_seed(7)
    {"ddp": ddp, "fsdp": fsdp, "accelerate": accelerate, "lightning": lightning, "danling": danling}[trainer](workload, steps, batch_size, Events(steps))


if __name__ == "__main__":
    main()
