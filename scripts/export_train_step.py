#!/usr/bin/env python3
"""Compiles a model and its loss, written in Python, into a package that the task `train_step` trains without Python.

    scripts/export_train_step.py examples/train_step/digits_model.py -o digits.train_step
    athanor job submit examples/jobs/train_step.yaml --set task.options.package=$PWD/digits.train_step

MODEL.py defines

    model()                  -> torch.nn.Module with its initial weights; forward takes the input and gives the output
    loss(output, target)     -> scalar, the mean over the batch's samples
    example()                -> (input, target): a batch of two or more samples; shapes and dtypes are taken from it
    metrics(output, target)  -> {name: scalar mean over the batch}; optional

The first axis of input and target counts samples and may have any length from 1 on in training and evaluation; all
other axes are fixed. forward() and loss() are traced once in training and once in evaluation mode: what Python decides
in them is decided for good, unless it depends on the batch size, which is refused. Buffers that forward() changes in
place (batch norm) are kept up; every parameter that requires a gradient must take part in the loss; one with several
names (tied weights) is one parameter. Random numbers (dropout) come from the rank's seeded generator, by PyTorch's own
operators: a run repeats exactly. What was compiled is compared with Python, and checked for NaN and infinity.

Needs torch, safetensors and a C++ compiler. The package is bound to this version of torch and to the CPU features that
train_step.json in it names. It holds machine code: give it to those only whom you would let run programs.
"""

import argparse
import importlib.util
import json
import pathlib
import re
import shutil
import sys
import tempfile
import traceback
import warnings
import zipfile
import zlib

FORMAT = 1
MANIFEST = "train_step.json"
WEIGHTS = "weights.safetensors"
MODES = ("train", "eval")


def fail(text):
    raise SystemExit(f"export_train_step: {text}")


def first_line(error):
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else '(no message)'}"


def is_users(frame):
    """Whether a frame of a stack is the user's: no torch, no Python of the system, not this program."""
    import sysconfig
    foreign = [str(pathlib.Path(torch.__file__).parent), __file__, "<"]
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


# ---- MODEL.py ----
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
        self.input, self.target = self.example(self.call("example()", source.example))
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
        good = isinstance(example, (tuple, list)) and len(example) == 2 and all(isinstance(t, torch.Tensor) for t in example)
        if not good:
            fail(f"{self.path}: example() must give (input, target), two tensors")
        shapes = [list(t.shape) for t in example]
        if not all(shapes) or shapes[0][0] != shapes[1][0] or shapes[0][0] < 2 or 0 in shapes[0] + shapes[1]:
            fail(f"{self.path}: example() gives shapes {shapes[0]} and {shapes[1]}; the first axis of both counts the samples, at least 2")
        return [t.detach().contiguous() for t in example]

    def tensors(self, values):
        return [t.detach().clone().contiguous() for t in values.values()]

    def check_batch(self):
        """One forward pass in Python: mistakes of the model are told in its own words."""
        before = {name: buffer.detach().clone() for name, buffer in self.buffers.items()}
        self.module.train()
        with torch.no_grad():
            output = self.call("forward of the example", lambda: self.module(self.input))
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
            try:
                with torch.no_grad():
                    losses.append(self.loss_function(self.module(batch), target).item())
            except Exception:  # a batch size that is fixed: tracing tells
                return
        if abs(losses[1] - losses[0]) > 1e-3 * max(abs(losses[0]), 1e-6):
            print(f"note: loss() gives {losses[0]:.6g} for the example and {losses[1]:.6g} for the example twice; "
                  "a job takes it for a mean over samples", file=sys.stderr)

    def classes(self, output):
        """How many classes are told apart: N x classes scores against N class numbers; 0: something else."""
        scores = isinstance(output, torch.Tensor) and output.dim() == 2 and output.is_floating_point() and output.shape[1] > 1
        return output.shape[1] if scores and self.target.dim() == 1 and self.target.dtype == torch.int64 else 0


# ---- tracing ----
class Step:
    """One step as a function of (parameters, buffers, input, target) alone."""

    def __init__(self, model, mode, classes, metrics, precision):
        self.model, self.mode, self.classes, self.metrics = model, mode, classes, metrics
        self.precision = precision
        self.updated = list(range(len(model.buffers))) if mode == "train" else []  # places of the buffers that it gives back

    def __call__(self, parameters, buffers, batch, target):
        model, train = self.model, self.mode == "train"
        model.module.train(train)
        needs = [p.requires_grad for p in model.parameters.values()]
        parameters = [p.detach().requires_grad_(train and need) for p, need in zip(parameters, needs)]
        buffers = [b.clone() for b in buffers]
        named = {**dict(zip(model.parameters, parameters)), **dict(zip(model.buffers, buffers))}
        bf16 = torch.autocast("cpu", torch.bfloat16, enabled=self.precision == "bf16", cache_enabled=False)
        with torch.set_grad_enabled(train):
            with bf16:
                output = torch.func.functional_call(model.module, named, (batch,))
                loss = model.loss_function(output, target)
            gradients = self.gradients(loss, parameters) if train else []
        results = [loss.detach().reshape(())]
        with torch.no_grad():
            if self.classes:
                results.append(output.detach())
            if self.metrics:
                values = model.metrics_function(output.detach() if isinstance(output, torch.Tensor) else output, target)
                results += [values[name].detach().reshape(()) for name in self.metrics]
        return results + gradients + [buffers[i] for i in self.updated]

    def result_names(self):
        """What __call__ gives, in words, as far as it must be finite."""
        names = ["a loss"] + (["scores"] if self.classes else []) + [f"the metric {name}" for name in self.metrics]
        if self.mode == "train":
            names += [f"a gradient of {name}" for name, p in self.model.parameters.items() if p.requires_grad]
        return names

    def gradients(self, loss, parameters):
        wanted = {name: p for name, p in zip(self.model.parameters, parameters) if p.requires_grad}
        gradients = torch.autograd.grad(loss, list(wanted.values()), allow_unused=True)
        unused = [name for name, gradient in zip(wanted, gradients) if gradient is None]
        if unused:
            fail(f"{self.model.path}: parameters that take no part in the loss: {', '.join(unused[:5])}; "
                 "freeze them (requires_grad_(False)) or take them out")
        return list(gradients)


LENGTHS = (*range(2, 131), 255, 256, 257, 511, 512, 513, 1023, 1024, 1025, 4096)


class Lines:
    """Where in the user's code the lengths of batches were decided about."""

    def __init__(self, environment):
        self.environment, self.slocs, self.original = environment, [], environment._get_sloc
        environment._get_sloc = self.located

    def located(self, *args, **kwargs):
        sloc = self.original(*args, **kwargs)
        frames = traceback.extract_stack()
        own = max((i for i, frame in enumerate(frames) if is_users(frame)), default=-1)
        asked = own >= 0 and frames[own + 1].filename == torch.__file__  # `if`, int(): of a symbol itself, not of an operator
        self.slocs.append((sloc, users_line(frames), asked))
        return sloc

    def of(self, guard):
        return next(((line, asked) for sloc, line, asked in self.slocs if sloc is guard.sloc), ("", False))

    def fixing(self):
        """The line that left one length only."""
        fixed = [g for g in self.environment.guards if getattr(g.expr, "is_Equality", False) and g.expr.rhs.is_number]
        return self.of(fixed[0])[0] if fixed else ""

    def branch(self):
        """A line of the user's own that goes one way for this example and another way for other lengths."""
        for guard in self.environment.guards:
            line, asked = self.of(guard)
            if asked and not self.holds(guard.expr):
                return line
        return ""

    @staticmethod
    def holds(expression):
        return all(expression.subs({symbol: length for symbol in expression.free_symbols}) for length in LENGTHS)


def trace(step, arguments):
    """The exported program. The batch axis alone is a symbol: no other length, not even an equal one, is mistaken for it."""
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.export import Dim
    from torch.fx.experimental.proxy_tensor import make_fx
    from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv, StatelessSymbolicContext

    path = step.model.path
    environment = ShapeEnv(duck_shape=False)
    lines = Lines(environment)
    fake = FakeTensorMode(shape_env=environment, allow_non_fake_inputs=True)

    def with_batch(tensor):
        sizes = [DimDynamic.DYNAMIC] + [DimDynamic.STATIC] * (tensor.dim() - 1)
        return fake.from_tensor(tensor, symbolic_context=StatelessSymbolicContext(dynamic_sizes=sizes))

    parameters, buffers, batch, target = arguments
    fakes = ([fake.from_tensor(t, static_shapes=True) for t in parameters],
             [fake.from_tensor(t, static_shapes=True) for t in buffers], with_batch(batch), with_batch(target))
    try:
        graph = make_fx(step, tracing_mode="symbolic", _allow_non_fake_inputs=True)(*fakes)
        lengths = [fakes[2].shape[0], fakes[3].shape[0]]
        if any(isinstance(n, int) or environment.replace(n.node.expr).is_number for n in lengths):
            fail(f"{path}: the step works for {len(batch)} samples only: something in forward(), loss() or metrics() fixes the "
                 f"batch size{lines.fixing()}")
        if branch := lines.branch():
            fail(f"{path}: what is computed depends on the number of samples{branch}; a step that is compiled once cannot "
                 "decide it again for each batch")
        samples = Dim("samples", min=1)
        shapes = ([None] * len(parameters), [None] * len(buffers), {0: samples}, {0: samples})
        program = torch.export.export(graph, arguments, dynamic_shapes=shapes)
    except Exception as error:
        hint = "; what is computed must not depend on values of tensors" if "DataDependent" in type(error).__name__ else ""
        line = users_line(traceback.extract_tb(error.__traceback__))
        fail(f"{path}: the {step.mode} step cannot be traced: {first_line(error)}{line}{hint}")
    return program


def changed_buffers(program, places):
    """Those of the results at the end, one for each of `places`, that are more than copies of an argument. Version counters
    do not tell: batch norm changes its statistics without them."""
    aten = torch.ops.aten
    copies = {aten.clone.default, aten.alias.default, aten.detach.default, aten.lift_fresh_copy.default}
    graph = program.run_decompositions({}).graph
    results = next(node for node in graph.nodes if node.op == "output").args[0]
    changed = []
    for place, node in zip(places, results[len(results) - len(places):]):
        while node.op == "call_function" and node.target in copies:
            node = node.args[0]
        if node.op != "placeholder":
            changed.append(place)
    return changed


def trace_step(step, arguments):
    program = trace(step, arguments)
    changed = changed_buffers(program, step.updated)
    if changed == step.updated:
        return program
    step.updated = changed
    return trace(step, arguments)


def draws_random_numbers(step, arguments):
    results = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        results.append(step(*arguments))
    return not all(torch.equal(a, b) for a, b in zip(*results))


# ---- compiling ----
def vector_flags():
    """The CPU features, as /proc/cpuinfo calls them, that the compiled code uses."""
    from torch._inductor.cpu_vec_isa import pick_vec_isa
    isa = pick_vec_isa()
    wanted = re.findall(r"-m([a-z0-9_.-]+)(?=\s|$)", isa.build_arch_flags()) if isa else []
    text = pathlib.Path("/proc/cpuinfo").read_text() if pathlib.Path("/proc/cpuinfo").is_file() else ""
    own = re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
    known = {name.replace("_", ""): name for name in (own.group(1).split() if own else [])}
    return sorted({known[w.replace("-", "").replace("_", "")] for w in wanted if w.replace("-", "").replace("_", "") in known})


def compile_program(program, path, mode):
    """Without -march=native the features in use are those of vector_flags() and no more."""
    import platform
    # threads_per_rank decides, not the number of threads here; random numbers are PyTorch's own operators', which can be
    # compared with Python's
    options = {"cpp.dynamic_threads": True, "fallback_random": True}
    if platform.machine() in ("x86_64", "AMD64"):
        options["cpp.march"] = ""
    try:
        torch._inductor.aoti_compile_and_package(program, package_path=str(path), inductor_configs=options)
    except Exception as error:
        fail(f"compiling the {mode} step failed: {first_line(error)}")


def check_finite(step, results, what):
    """A loss or a gradient that is not finite would end a job at its first steps."""
    names = step.result_names()
    for name, tensor in zip(names, results):
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            fail(f"{step.model.path}: {what} {name} with {int((~tensor.isfinite()).sum())} of {tensor.numel()} numbers that "
                 f"are not finite (precision {step.precision})")


def compare(step, package, arguments, count):
    """The largest difference between the package and Python over `count` samples, relative to a result's size."""
    parameters, buffers, batch, target = arguments
    batch, target = batch[:count], target[:count]
    torch.manual_seed(count)
    expected = step(parameters, buffers, batch, target)
    torch.manual_seed(count)
    found = package(parameters, buffers, batch, target)
    check_finite(step, expected, f"the {step.mode} step of the example gives")
    check_finite(step, found, f"the compiled {step.mode} step gives")
    if len(found) != len(expected):
        fail(f"the compiled {step.mode} step gives {len(found)} results, not {len(expected)}")
    largest = max(float(a.abs().max()) for a in expected if a.numel())
    worst = 0.0
    for a, b in zip(expected, found):
        if a.shape != b.shape or a.dtype != b.dtype:
            fail(f"the compiled {step.mode} step gives {tuple(b.shape)} {b.dtype}, not {tuple(a.shape)} {a.dtype}")
        if not a.numel():
            continue
        a, b = a.double(), b.double()
        size = max(float(a.abs().max()), 1e-3 * largest, 1e-9)  # a gradient that cancels out is nothing but rounding
        worst = max(worst, float((a - b).abs().max()) / size)
    return worst


def check_compiled(step, path, arguments):
    package = torch._inductor.aoti_load_package(str(path))
    limit = 0.05 if step.precision == "bf16" else 1e-3
    for count in (len(arguments[2]), len(arguments[2]) - 1):
        try:
            worst = compare(step, package, arguments, count)
        except (RuntimeError, ValueError) as error:
            fail(f"the {step.mode} step fails for {count} samples: {first_line(error)}")
        if not worst <= limit:
            fail(f"the compiled {step.mode} step differs from Python by {worst:.2g} of a result's size for {count} samples "
                 f"(allowed: {limit})")
    return worst


def unpack(archive, folder):
    """Unpacked, a package needs no temporary folder in the trainer, which a killed rank would leave behind."""
    with zipfile.ZipFile(archive) as file:
        for name in file.namelist():
            if "/data/aotinductor/" not in "/" + name or name.endswith(("/", ".cpp")):
                continue
            path = folder / "data/aotinductor" / name.split("data/aotinductor/", 1)[1]
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(file.read(name))


def checksum(path):
    value = 0
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            value = zlib.crc32(block, value)
    return {"size": path.stat().st_size, "crc32": value}


def write_package(model, arguments, precision, folder, work):
    from safetensors.torch import save_file

    classes, metrics = model.check_batch()
    random, updated = False, set()
    for mode in MODES:
        step = Step(model, mode, classes, metrics, precision)
        program, draws = trace_step(step, arguments), draws_random_numbers(step, arguments)
        if mode == "train":
            random, updated = draws, set(step.updated)
            for i, name in enumerate(model.buffers):
                if name in model.changed and i not in updated:
                    fail(f"{model.path}: forward() changes the buffer {name} where tracing does not see it")
        archive = work / f"{mode}.pt2"
        compile_program(program, archive, mode)
        seeded = ", with the same random numbers" if draws else ""
        print(f"{mode} step: within {check_compiled(step, archive, arguments):.1g} of Python's{seeded}")
        unpack(archive, folder / mode)
    weights = {**dict(zip(model.parameters, arguments[0])), **dict(zip(model.buffers, arguments[1]))}
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
    (folder / WEIGHTS).chmod((folder / "train").stat().st_mode & 0o666)  # it is made for its owner alone

    def describe(name, tensor, **more):
        also = {"also": model.tied[name]} if name in model.tied else {}
        return {"name": name, **also, "shape": list(tensor.shape), "dtype": short_name(tensor.dtype), **more}

    persistent = set(model.module.state_dict(keep_vars=True))
    manifest = {
        "format": FORMAT, "torch": torch.__version__.split("+")[0], "cpu_flags": vector_flags(), "precision": precision,
        "input": {"shape": list(model.input.shape[1:]), "dtype": short_name(model.input.dtype)},
        "target": {"shape": list(model.target.shape[1:]), "dtype": short_name(model.target.dtype)},
        "classes": classes, "metrics": metrics, "random": random,
        "parameters": [describe(n, p, trainable=p.requires_grad) for n, p in model.parameters.items()],
        "buffers": [describe(n, b, persistent=n in persistent, updated=i in updated) for i, (n, b) in enumerate(model.buffers.items())],
        "files": {str(p.relative_to(folder)): checksum(p) for p in sorted(folder.rglob("*")) if p.is_file()},
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")
    return manifest


def export(arguments, work):
    model = Model(arguments.model, arguments.seed)
    inputs = (model.tensors(model.parameters), model.tensors(model.buffers), model.input, model.target)
    folder = work / "package"
    folder.mkdir()
    manifest = write_package(model, inputs, arguments.precision, folder, work)
    count = sum(p.numel() for p in model.parameters.values())
    return folder, (f"{len(manifest['parameters'])} parameters ({count} numbers), {len(manifest['buffers'])} buffers, "
                    f"torch {manifest['torch']}, CPU features: {' '.join(manifest['cpu_flags']) or 'any'}")


def import_torch():
    global torch
    try:
        import safetensors.torch  # noqa: F401
        import torch
        import torch._inductor
    except ImportError as error:
        fail(f"{error}; needed: torch and safetensors")
    warnings.simplefilter("ignore", FutureWarning)
    torch.use_deterministic_algorithms(True)  # sums of scattered gradients in a fixed order
    torch.utils.deterministic.fill_uninitialized_memory = False


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
        fail(f"{target}: exists and is no package; move it away or choose another name with -o")
    if not target.resolve().parent.is_dir():
        fail(f"{target}: there is no folder {target.resolve().parent}")
    with tempfile.TemporaryDirectory(prefix=".export-", dir=target.resolve().parent) as work:
        tempfile.tempdir = work  # where the compiler's caches go, unless TORCHINDUCTOR_CACHE_DIR is set
        import_torch()
        folder, summary = export(arguments, pathlib.Path(work))
        if target.exists():
            shutil.rmtree(target)
        folder.rename(target)
    print(f"saved {target}: {summary}")


if __name__ == "__main__":
    main()
