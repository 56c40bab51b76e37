"""Makes the samples beside it with the real DeepSpeed (0.19.8, on the CPU): for ZeRO 1, 2 and 3 what two ranks save, and the same state as DeepSpeed's own zero_to_fp32 and the optimizer give it.

Usage: make_samples.py FOLDER, with deepspeed installed (DS_BUILD_OPS=0 pip install --no-build-isolation deepspeed==0.19.8)
"""

import os
import pathlib
import sys

import torch


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = torch.nn.Linear(7, 5), torch.nn.Linear(5, 3)
        self.register_buffer("buf", torch.arange(4.0))

    def forward(self, x):
        return self.b(torch.tanh(self.a(x))).sum()


def train(rank, stage, folder):
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", LOCAL_WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(29600 + stage),
                      DS_ACCELERATOR="cpu", GLOO_SOCKET_IFNAME="lo")
    import deepspeed
    import deepspeed.comm.torch
    import safetensors.torch
    from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state
    deepspeed.comm.torch.build_shm_op = lambda: None  # needs a compiler
    deepspeed.init_distributed(dist_backend="gloo")
    torch.manual_seed(1)
    net = Net()
    config = {"train_micro_batch_size_per_gpu": 2, "zero_optimization": {"stage": stage}, "zero_allow_untested_optimizer": True, "zero_force_ds_cpu_optimizer": False}
    engine, *_ = deepspeed.initialize(model=net, optimizer=torch.optim.AdamW(net.parameters(), lr=0.1), config=config)
    torch.manual_seed(5 + rank)
    for _ in range(3):
        engine.backward(engine(torch.randn(2, 7)))
        engine.step()
    engine.save_checkpoint(str(folder / f"zero{stage}"), tag="step3")
    expected = {"model.buf": net.buf.clone()}
    for name, parameter in engine.module.named_parameters():
        expected[f"model.{name}"] = safe_get_full_fp32_param(parameter).clone().contiguous()
        for slot in ("exp_avg", "exp_avg_sq"):
            expected[f"optim.{name}.{slot}"] = safe_get_full_optimizer_state(parameter, slot).clone().contiguous()
    if rank == 0:
        safetensors.torch.save_file(expected, folder / f"zero{stage}.safetensors")
    torch.distributed.barrier()


def main():
    folder = pathlib.Path(sys.argv[1]).absolute()
    if len(sys.argv) == 4:
        train(int(sys.argv[2]), int(sys.argv[3]), folder)
        return
    for stage in (1, 2, 3):
        import subprocess
        ranks = [subprocess.Popen([sys.executable, __file__, str(folder), str(rank), str(stage)]) for rank in range(2)]
        if any([rank.wait(timeout=600) for rank in ranks]):
            sys.exit(f"zero {stage}: a rank has failed")


if __name__ == "__main__":
    main()
