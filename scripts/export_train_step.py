#!/usr/bin/env python3
"""Compiles a model and its loss, written in Python, into a package that the task `train_step` trains without Python.

    scripts/export_train_step.py examples/train_step/digits_model.py -o digits.train_step
    athanor job submit examples/jobs/train_step.yaml --set task.options.package=$PWD/digits.train_step

MODEL.py defines

    model()                  -> torch.nn.Module with its initial weights; forward takes the input and gives the output
    loss(output, target)     -> scalar, the mean over the batch's samples
    example()                -> (input, target): a batch of two or more samples; shapes and dtypes are taken from it. Or
                                (input, {name: tensor}, target): forward(input, name=...) takes further inputs
    metrics(output, target)  -> {name: scalar mean over the batch}; optional

The first axis of inputs and target counts samples and may have any length from 1 on in training and evaluation; all
other axes are fixed. forward() and loss() are traced once in training and once in evaluation mode: what Python decides
in them is decided for good, unless it depends on the batch size, which is refused. Buffers that forward() changes in
place (batch norm) are kept up; every parameter that requires a gradient must take part in the loss; one with several
names (tied weights) is one parameter. Random numbers (dropout) come from the rank's seeded generator, by PyTorch's own
operators: a run repeats exactly. What was compiled is compared with Python, and checked for NaN and infinity.

Needs torch, safetensors and a C++ compiler. The package is bound to this version of torch and to the CPU features that
train_step.json in it names. It holds machine code: give it to those only whom you would let run programs.
"""

import argparse
import pathlib
import shutil
import sys
import tempfile
import warnings

MANIFEST = "train_step.json"


def stop(text):
    raise SystemExit(f"export_train_step: {text}")


def prepare_torch():
    try:
        import safetensors.torch  # noqa: F401
        import torch
        import torch._inductor  # noqa: F401
    except ImportError as error:
        stop(f"{error}; needed: torch and safetensors")
    warnings.simplefilter("ignore", FutureWarning)
    torch.use_deterministic_algorithms(True)  # sums of scattered gradients in a fixed order
    torch.utils.deterministic.fill_uninitialized_memory = False


def export(arguments, work):
    """The package's folder under `work`, and what is in it in one line."""
    prepare_torch()
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
    from athanor_train_step import model, package
    try:
        return package.export(arguments, work)
    except model.Refused as refused:
        stop(refused)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=pathlib.Path, metavar="MODEL.py")
    parser.add_argument("-o", "--output", type=pathlib.Path, metavar="PACKAGE",
                        help="the folder to write; a package there is replaced (default: MODEL.train_step beside MODEL.py)")
    parser.add_argument("--seed", type=int, default=0, help="of torch.manual_seed before model() (default: 0)")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32",
                        help="bf16: forward() and loss() under torch.autocast (default: fp32)")
    arguments = parser.parse_args()
    target = arguments.output or arguments.model.with_suffix(".train_step")
    if target.exists() and not (target / MANIFEST).is_file():
        stop(f"{target}: exists and is no package; move it away or choose another name with -o")
    if not target.resolve().parent.is_dir():
        stop(f"{target}: there is no folder {target.resolve().parent}")
    with tempfile.TemporaryDirectory(prefix=".export-", dir=target.resolve().parent) as work:
        tempfile.tempdir = work  # where the compiler's caches go, unless TORCHINDUCTOR_CACHE_DIR is set
        folder, summary = export(arguments, pathlib.Path(work))
        if target.exists():
            shutil.rmtree(target)
        folder.rename(target)
    print(f"saved {target}: {summary}")


if __name__ == "__main__":
    main()
