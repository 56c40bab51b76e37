"""Compiles the steps, compares them with Python, and writes the package."""

import json
import pathlib
import platform
import re
import zipfile
import zlib

import torch
import torch._inductor
from safetensors.torch import save_file

from .model import Model, fail, first_line, short_name
from .steps import Step, draws_random_numbers, trace_step

FORMAT = 1
MANIFEST = "train_step.json"
WEIGHTS = "weights.safetensors"
MODES = ("train", "eval")


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
    parameters, buffers, batch, more, target = arguments
    batch, more, target = batch[:count], [tensor[:count] for tensor in more], target[:count]
    torch.manual_seed(count)
    expected = step(parameters, buffers, batch, more, target)
    torch.manual_seed(count)
    found = package(parameters, buffers, batch, more, target)
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


def write_steps(model, arguments, precision, folder, work, classes, metrics):
    """Whether the training step draws random numbers, and the places of the buffers that it changes."""
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
    return random, updated


def describe_sample(tensor, **more):
    return {**more, "shape": list(tensor.shape[1:]), "dtype": short_name(tensor.dtype)}


def write_package(model, arguments, precision, folder, work):
    classes, metrics = model.check_batch()
    random, updated = write_steps(model, arguments, precision, folder, work, classes, metrics)
    weights = {**dict(zip(model.parameters, arguments[0])), **dict(zip(model.buffers, arguments[1]))}
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
    (folder / WEIGHTS).chmod((folder / "train").stat().st_mode & 0o666)  # it is made for its owner alone

    def describe(name, tensor, **more):
        also = {"also": model.tied[name]} if name in model.tied else {}
        return {"name": name, **also, "shape": list(tensor.shape), "dtype": short_name(tensor.dtype), **more}

    persistent = set(model.module.state_dict(keep_vars=True))
    manifest = {
        "format": FORMAT, "torch": torch.__version__.split("+")[0], "cpu_flags": vector_flags(), "precision": precision,
        "input": describe_sample(model.input), "target": describe_sample(model.target),
        **({"more": [describe_sample(tensor, name=name) for name, tensor in model.more.items()]} if model.more else {}),
        "classes": classes, "metrics": metrics, "random": random,
        "parameters": [describe(n, p, trainable=p.requires_grad) for n, p in model.parameters.items()],
        "buffers": [describe(n, b, persistent=n in persistent, updated=i in updated) for i, (n, b) in enumerate(model.buffers.items())],
        "files": {str(p.relative_to(folder)): checksum(p) for p in sorted(folder.rglob("*")) if p.is_file()},
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n")
    return manifest


def export(arguments, work):
    model = Model(arguments.model, arguments.seed)
    inputs = (model.tensors(model.parameters), model.tensors(model.buffers), model.input, list(model.more.values()), model.target)
    folder = work / "package"
    folder.mkdir()
    manifest = write_package(model, inputs, arguments.precision, folder, work)
    count = sum(p.numel() for p in model.parameters.values())
    return folder, (f"{len(manifest['parameters'])} parameters ({count} numbers), {len(manifest['buffers'])} buffers, "
                    f"torch {manifest['torch']}, CPU features: {' '.join(manifest['cpu_flags']) or 'any'}")


