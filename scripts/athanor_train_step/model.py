"""What MODEL.py defines, checked before anything is traced; and what its mistakes are called."""

import importlib.util
import pathlib
import re
import sys
import sysconfig
import traceback

import torch


class Refused(Exception):
    """Something that cannot become a package, in words for whoever wrote MODEL.py."""


def fail(text):
    raise Refused(text)


def first_line(error):
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else '(no message)'}"


def is_users(frame):
    """Whether a frame of a stack is the user's: no torch, no Python of the system, not this program."""
    foreign = [str(pathlib.Path(torch.__file__).parent), str(pathlib.Path(__file__).parent), "<"]
    if "site-packages" not in frame.filename:  # libraries of models count
        foreign.append(sysconfig.get_paths()["stdlib"])
    return not any(frame.filename.startswith(place) for place in foreign)


def users_line(frames):
    """The innermost line of the user's, as " (model.py:9: if x.shape[0] > 4:)"; "" when there is none."""
    for frame in reversed(list(frames)):
        if is_users(frame):
            return f" ({pathlib.Path(frame.filename).name}:{frame.lineno}: {(frame.line or '').strip()})"
    return ""


def short_name(dtype):
    return str(dtype).removeprefix("torch.")



class Model:
    """What MODEL.py defines, checked."""

    def __init__(self, path, seed):
        self.path = path
        source = self.load()
        for name in ("model", "loss", "example"):
            if not callable(getattr(source, name, None)):
                fail(f"{path}: found no function {name}(); needed: model(), loss(output, target), example()")
        self.loss_function = source.loss
        self.metrics_function = getattr(source, "metrics", None)
        torch.manual_seed(seed)
        self.module = self.call("model()", source.model)
        if not isinstance(self.module, torch.nn.Module):
            fail(f"{path}: model() gives {type(self.module).__name__}; needed: a torch.nn.Module")
        self.input, self.more, self.target = self.example(self.call("example()", source.example))
        self.parameters = dict(self.module.named_parameters())
        self.buffers = dict(self.module.named_buffers())
        self.tied = self.tied_names()
        self.changed = set()  # buffers that a forward pass in training mode changes
        if not any(p.requires_grad for p in self.parameters.values()):
            fail(f"{path}: the model has no parameter that requires a gradient")
        for name, tensor in {**self.parameters, **self.buffers}.items():
            if tensor.device.type != "cpu" or tensor.layout != torch.strided or tensor.is_complex() or tensor.is_quantized:
                fail(f"{path}: {name} is {tensor.layout}, {tensor.dtype} on {tensor.device}; allowed: plain tensors on the CPU")

    def tied_names(self):
        """{first name: the other names} of parameters and buffers that have several: state_dict() has them all."""
        first, tied = {}, {}
        every = [*self.module.named_parameters(remove_duplicate=False), *self.module.named_buffers(remove_duplicate=False)]
        for name, tensor in every:
            known = first.setdefault(id(tensor), name)
            if known != name:
                tied.setdefault(known, []).append(name)
        return tied

    def load(self):
        if not self.path.is_file():
            fail(f"{self.path}: no such file")
        sys.path.insert(0, str(self.path.resolve().parent))
        spec = importlib.util.spec_from_file_location(self.path.stem, self.path)
        if spec is None:
            fail(f"{self.path}: not a Python file (*.py)")
        source = importlib.util.module_from_spec(spec)
        sys.modules[self.path.stem] = source
        self.call("importing it", lambda: spec.loader.exec_module(source))
        return source

    def call(self, what, function):
        try:
            return function()
        except Exception as error:
            fail(f"{self.path}: {what} failed: {first_line(error)}{users_line(traceback.extract_tb(error.__traceback__))}")

    def example(self, example):
        """(input, {name: further input}, target): contiguous tensors of one number of samples."""
        parts = list(example) if isinstance(example, (tuple, list)) else []
        more = parts.pop(1) if len(parts) == 3 else {}
        tensors = [*parts, *more.values()] if isinstance(more, dict) else []
        if len(parts) != 2 or not tensors or not all(isinstance(t, torch.Tensor) for t in tensors):
            fail(f"{self.path}: example() must give (input, target), two tensors, or (input, {{name: tensor}}, target)")
        self.check_names(more)
        shapes = [list(t.shape) for t in tensors]
        if not all(shapes) or len({shape[0] for shape in shapes}) != 1 or shapes[0][0] < 2 or any(0 in shape for shape in shapes):
            fail(f"{self.path}: example() gives shapes {' and '.join(map(str, shapes))}; the first axis of each counts the samples, "
                 "at least 2")
        whole = [t.detach().contiguous() for t in parts]
        return whole[0], {name: more[name].detach().contiguous() for name in sorted(more)}, whole[1]

    def check_names(self, more):
        """Further inputs are arguments of forward() and keys of a job file."""
        for name in more:
            if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
                fail(f"{self.path}: example() names a further input {name!r}; allowed: the name of an argument of forward()")

    def forward(self, batch, more):
        return self.module(batch, **more)

    def tensors(self, values):
        return [t.detach().clone().contiguous() for t in values.values()]

    def check_batch(self):
        """One forward pass in Python: mistakes of the model are told in its own words."""
        before = {name: buffer.detach().clone() for name, buffer in self.buffers.items()}
        self.module.train()
        with torch.no_grad():
            output = self.call("forward of the example", lambda: self.forward(self.input, self.more))
            loss = self.call("loss of the example", lambda: self.loss_function(output, self.target))
        if not isinstance(loss, torch.Tensor) or loss.numel() != 1 or not loss.is_floating_point():
            fail(f"{self.path}: loss() gives {tuple(loss.shape) if isinstance(loss, torch.Tensor) else type(loss).__name__}; "
                 "needed: one floating-point number as a tensor")
        after = dict(self.module.named_buffers())
        for name, buffer in self.buffers.items():
            if after.get(name) is not buffer:
                fail(f"{self.path}: forward() replaces the buffer {name}; change it in place (copy_, add_)")
            if not torch.equal(buffer, before[name]):
                self.changed.add(name)
            buffer.copy_(before[name])
        self.check_mean()
        names = []
        if self.metrics_function is not None:
            metrics = self.call("metrics of the example", lambda: self.metrics_function(output, self.target))
            good = isinstance(metrics, dict) and all(isinstance(v, torch.Tensor) and v.numel() == 1 for v in metrics.values())
            if not good or not all(isinstance(n, str) and re.fullmatch(r"[A-Za-z0-9_]+", n) and n != "loss" for n in metrics):
                fail(f"{self.path}: metrics() must give {{name: tensor of one number}}; names of letters, digits and _, not \"loss\"")
            names = sorted(metrics)
        return self.classes(output), names

    def check_mean(self):
        """A sum over samples, or over a fixed number of them, would train with other steps where batches are smaller."""
        self.module.eval()
        losses = []
        for times in (1, 2):
            batch, target = torch.cat([self.input] * times), torch.cat([self.target] * times)
            more = {name: torch.cat([tensor] * times) for name, tensor in self.more.items()}
            try:
                with torch.no_grad():
                    losses.append(self.loss_function(self.forward(batch, more), target).item())
            except Exception:  # a batch size that is fixed: tracing tells
                return
        if abs(losses[1] - losses[0]) > 1e-3 * max(abs(losses[0]), 1e-6):
            print(f"note: loss() gives {losses[0]:.6g} for the example and {losses[1]:.6g} for the example twice; "
                  "a job takes it for a mean over samples", file=sys.stderr)

    def classes(self, output):
        """How many classes are told apart: N x classes scores against N class numbers; 0: something else."""
        scores = isinstance(output, torch.Tensor) and output.dim() == 2 and output.is_floating_point() and output.shape[1] > 1
        return output.shape[1] if scores and self.target.dim() == 1 and self.target.dtype == torch.int64 else 0


