"""One training or evaluation step of a model as a function of tensors alone, and how it is traced."""

import traceback

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.export import Dim
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv, StatelessSymbolicContext

from .model import fail, first_line, is_users, users_line


class Step:
    """One step as a function of (parameters, buffers, input, target) alone."""

    def __init__(self, model, mode, classes, metrics, precision):
        self.model, self.mode, self.classes, self.metrics = model, mode, classes, metrics
        self.precision = precision
        self.updated = list(range(len(model.buffers))) if mode == "train" else []  # places of the buffers that it gives back

    def __call__(self, parameters, buffers, batch, more, target):
        model, train = self.model, self.mode == "train"
        model.module.train(train)
        needs = [p.requires_grad for p in model.parameters.values()]
        parameters = [p.detach().requires_grad_(train and need) for p, need in zip(parameters, needs)]
        buffers = [b.clone() for b in buffers]
        named = {**dict(zip(model.parameters, parameters)), **dict(zip(model.buffers, buffers))}
        bf16 = torch.autocast("cpu", torch.bfloat16, enabled=self.precision == "bf16", cache_enabled=False)
        with torch.set_grad_enabled(train):
            with bf16:
                output = torch.func.functional_call(model.module, named, (batch,), dict(zip(model.more, more)))
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
    path = step.model.path
    environment = ShapeEnv(duck_shape=False)
    lines = Lines(environment)
    fake = FakeTensorMode(shape_env=environment, allow_non_fake_inputs=True)

    def with_batch(tensor):
        sizes = [DimDynamic.DYNAMIC] + [DimDynamic.STATIC] * (tensor.dim() - 1)
        return fake.from_tensor(tensor, symbolic_context=StatelessSymbolicContext(dynamic_sizes=sizes))

    parameters, buffers, batch, more, target = arguments
    fakes = ([fake.from_tensor(t, static_shapes=True) for t in parameters],
             [fake.from_tensor(t, static_shapes=True) for t in buffers], with_batch(batch), [with_batch(t) for t in more],
             with_batch(target))
    try:
        graph = make_fx(step, tracing_mode="symbolic", _allow_non_fake_inputs=True)(*fakes)
        lengths = [tensor.shape[0] for tensor in (fakes[2], *fakes[3], fakes[4])]
        if any(isinstance(n, int) or environment.replace(n.node.expr).is_number for n in lengths):
            fail(f"{path}: the step works for {len(batch)} samples only: something in forward(), loss() or metrics() fixes the "
                 f"batch size{lines.fixing()}")
        if branch := lines.branch():
            fail(f"{path}: what is computed depends on the number of samples{branch}; a step that is compiled once cannot "
                 "decide it again for each batch")
        samples = Dim("samples", min=1)
        shapes = ([None] * len(parameters), [None] * len(buffers), {0: samples}, [{0: samples}] * len(more), {0: samples})
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


