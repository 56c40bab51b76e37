"""What scripts/export_train_step.py refuses of a MODEL.py, before anything is compiled, and in which words."""

import pathlib
import sys
import tempfile
import textwrap
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[4]
sys.path.insert(0, str(ROOT / "scripts"))

import torch  # noqa: E402
from athanor_train_step import model as models  # noqa: E402
from athanor_train_step import package, steps  # noqa: E402

GOOD = """
    import torch
    from torch import nn
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(3, 4), nn.Linear(4, 4)
            self.register_buffer("seen", torch.zeros(1))
        def forward(self, x):
            return self.second(self.first(x))
    def model():
        return Net()
    def loss(output, target):
        return nn.functional.cross_entropy(output, target)
    def example():
        return torch.randn(4, 3), torch.arange(4) % 4
"""


class TrainStepModelTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def load(self, *changes, more=""):
        source = textwrap.dedent(GOOD)
        for old, new in changes:
            self.assertIn(old, source)
            source = source.replace(old, new)
        path = self.folder / f"m{len(list(self.folder.iterdir()))}.py"
        path.write_text(source + textwrap.dedent(more))
        return models.Model(path, seed=0)

    def refused(self, *changes, says, more="", check=lambda model: model.check_batch()):
        with self.assertRaises(models.Refused) as refused:
            check(self.load(*changes, more=more))
        self.assertIn(says, str(refused.exception))

    def trace(self, model, mode="train", precision="fp32"):
        classes, metrics = model.check_batch()
        step = steps.Step(model, mode, classes, metrics, precision)
        arguments = (model.tensors(model.parameters), model.tensors(model.buffers), model.input, list(model.more.values()), model.target)
        return step, arguments, steps.trace_step(step, arguments)

    def test_a_good_one_is_described(self):
        model = self.load()
        self.assertEqual(model.check_batch(), (4, []))
        self.assertEqual(model.more, {})
        self.assertEqual(list(model.parameters), ["first.weight", "first.bias", "second.weight", "second.bias"])

    def test_what_is_no_example(self):
        example = "return torch.randn(4, 3), torch.arange(4) % 4"
        for found, says in (("return torch.randn(4, 3)", "two tensors"),
                            ("return torch.randn(4, 3), torch.arange(5) % 4", "the first axis of each counts the samples"),
                            ("return torch.randn(1, 3), torch.arange(1)", "at least 2"),
                            ("return torch.randn(4, 3), {'m': 3}, torch.arange(4)", "(input, {name: tensor}, target)"),
                            ("return torch.randn(4, 3), {'a b': torch.ones(4)}, torch.arange(4)", "'a b'"),
                            ("return torch.randn(4, 3), {'m': torch.ones(3)}, torch.arange(4)", "[4, 3] and [4] and [3]")):
            self.refused((example, found), says=says)

    def test_further_inputs_come_by_name_in_one_order(self):
        model = self.load(("def forward(self, x):", "def forward(self, x, scale, mask=None):"),
                          ("self.second(self.first(x))", "self.second(self.first(x * mask) * scale)"),
                          ("return torch.randn(4, 3), torch", "return torch.randn(4, 3), {'scale': torch.ones(4, 1), 'mask': torch.ones(4, 3)}, torch"))
        self.assertEqual(list(model.more), ["mask", "scale"])
        step, arguments, program = self.trace(model)
        found = program.module()(*arguments)
        for expected, got in zip(step(*arguments), found):
            torch.testing.assert_close(got, expected)
        self.refused(("return torch.randn(4, 3), torch", "return torch.randn(4, 3), {'musk': torch.ones(4)}, torch"),
                     says="forward of the example failed: TypeError")

    def test_mistakes_of_the_model_are_told_with_their_line(self):
        self.refused(("return self.second(self.first(x))", "return self.second(x)"), says="return self.second(x)")
        self.refused(("nn.functional.cross_entropy(output, target)", "output"), says="one floating-point number")
        self.refused(("return self.second", "self.seen = self.seen + 1; return self.second"), says="replaces the buffer seen")
        self.refused(("return Net()", "return 3"), says="needed: a torch.nn.Module")
        self.refused(says='not "loss"', more="def metrics(output, target):\n    return {'loss': output.mean()}\n")

    def test_what_cannot_be_traced(self):
        forward = "return self.second(self.first(x))"
        self.refused((forward, "return self.second(self.first(x)) * (2 if x.shape[0] > 4 else 1)"),
                     says="depends on the number of samples", check=self.trace)
        self.refused((forward, "return self.second(self.first(x)) * (2 if x.sum() > 0 else 1)"),
                     says="must not depend on values of tensors", check=self.trace)
        self.refused((forward, "return self.second(self.first(x).reshape(4, 4))"), says="works for 4 samples only", check=self.trace)
        self.refused((forward, "self.first(x); return self.second(torch.ones(x.shape[0], 4))"),
                     says="take no part in the loss: first.weight, first.bias", check=self.trace)

    def test_numbers_that_are_not_finite(self):
        model = self.load(("return nn.functional.cross_entropy(output, target)", "return torch.sqrt(output * 0).mean()"))
        model.check_batch()
        step = steps.Step(model, "train", 0, [], "fp32")
        arguments = (model.tensors(model.parameters), model.tensors(model.buffers), model.input, [], model.target)
        with self.assertRaisesRegex(models.Refused, "a gradient of first.weight with 12 of 12 numbers that are not finite"):
            package.check_finite(step, step(*arguments), "the train step gives")

    def test_tied_weights_are_one_parameter_with_all_of_its_names(self):
        model = self.load(("        self.register_buffer", "        self.first = nn.Linear(3, 4, bias=False)\n"
                           "        self.third = self.first\n        self.register_buffer"))
        self.assertEqual(model.tied, {"first.weight": ["third.weight"]})
        self.assertNotIn("third.weight", model.parameters)


if __name__ == "__main__":
    torch.use_deterministic_algorithms(True)
    unittest.main()
