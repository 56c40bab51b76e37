"""Each kind of task, submitted as a user would: the job files of examples/jobs; and models of Python against PyTorch's own loop."""

import os
import pathlib
import re
import subprocess
import sys

from e2e_case import BUILD, DIGITS, ROOT, E2ECase, main

MODEL = ROOT / "examples/train_step/digits_model.py"
STEPS = 100  # two passes, with the smaller batch at the end of each
BATCH = 32
LR = 0.05


class TasksTest(E2ECase):
    def finish(self, job_file, *args, timeout=240):
        job = self.cluster.submit(ROOT / "examples/jobs" / job_file, *args)
        final = self.cluster.wait_job(job, timeout=timeout)
        return final["progress"].get("metrics", {})

    def test_digits(self):
        self.assertGreaterEqual(self.finish("digits.yaml")["test.accuracy"], 0.97)

    def test_image_resnet(self):
        metrics = self.finish("image_resnet.yaml")
        self.assertGreater(metrics["test.accuracy"], 0.9)

    def test_char_gpt_falls_under_its_stated_loss(self):
        self.assertLess(self.finish("char_gpt.yaml", timeout=700)["val.loss"], 1.45)

    def test_custom_task_in_a_shared_object(self):
        library = next((BUILD / "examples").rglob("libcustom_task.so"))
        self.finish("custom_task.yaml", "--set", f"task.library={library}")

    def test_torchscript_saved_from_python(self):
        module = self.folder / "model.pt"
        subprocess.run([sys.executable, str(ROOT / "examples/torchscript/export.py"), str(module)], check=True, timeout=120)
        self.finish("torchscript.yaml", "--set", f"task.options.module={module}")

    def test_torchscript_with_two_inputs_and_a_file_to_validate_on(self):
        folder = self.folder / "two"
        subprocess.run([sys.executable, str(ROOT / "examples/torchscript/two_inputs.py"), str(folder)], check=True, timeout=120)
        sets = [f"task.options.module={folder}/net.pt"]
        for prefix, split in (("", "train"), ("val_", "val")):
            sets += [f"task.options.{prefix}data={folder}/{split}_images.npy", f"task.options.{prefix}target_file={folder}/{split}_labels.npy",
                     f"task.options.{prefix}input_files.ink={folder}/{split}_ink.npy"]
        metrics = self.finish("torchscript_inputs.yaml", *[word for value in sets for word in ("--set", value)])
        self.assertGreater(metrics["val.accuracy"], 0.9)
        self.assertGreater(metrics["val.among_three"], metrics["val.accuracy"])


    def test_what_happens_in_a_run_is_told_once_in_its_events(self):
        job = self.submit(name="early", steps=400, interval=20, runner={
            "optim": {"type": "sgd", "lr": 0.0}, "patience": 1, "evaluate": {"interval": 10}, "score": {"split": "test", "name": "loss"}})
        self.cluster.wait_job(job)
        told = [event["message"] for event in self.cluster.events(job) if event["type"] == "RunEvent"]
        self.assertEqual(len(told), 1, told)
        self.assertRegex(told[0], r"^stopped early after step 30: 2 evaluations without a better test.loss; best [\d.]+ at step 30$")

        path = self.cluster.checkpoints(job)[0]["path"]
        child = self.submit(name="tuned", steps=20, interval=20, runner={"pretrained": path})
        self.cluster.wait_job(child)
        told = [event["message"] for event in self.cluster.events(child) if event["type"] == "RunEvent"]
        self.assertEqual(len(told), 1, told)
        self.assertRegex(told[0], rf"^loaded \d+ tensors from {re.escape(path)}")


def export(model, folder):
    """The package of a MODEL.py, compiled under `folder`."""
    package = folder / f"{model.stem}.train_step"
    environment = {**os.environ, "TMPDIR": str(folder), "TORCHINDUCTOR_CACHE_DIR": str(folder / "cache")}
    subprocess.run([sys.executable, str(ROOT / "scripts/export_train_step.py"), str(model), "-o", str(package), "--seed", "0"],
                   check=True, timeout=600, env=environment)
    return package


SCALED = """
import torch
from torch import nn
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner, self.kinds = nn.Linear(6, 3), nn.Embedding(4, 3)
    def forward(self, x, scale, kind):
        return (torch.tanh(self.inner(x)) * scale.unsqueeze(1) + self.kinds(kind)).sum(1)
def model():
    return Net()
def loss(output, target):
    return ((output - target) ** 2).mean()
def example():
    return torch.rand(4, 6), {"scale": torch.rand(4), "kind": torch.arange(4) % 4}, torch.rand(4)
"""

TOKENS = """
import torch
from torch import nn
def model():
    return nn.Sequential(nn.Embedding(8, 16), nn.Linear(16, 8))
def loss(output, target):
    return nn.functional.cross_entropy(output.reshape(-1, 8), target.reshape(-1))
def example():
    return torch.zeros(4, 12, dtype=torch.int64), torch.zeros(4, 12, dtype=torch.int64)
"""


class TrainStepDataTest(E2ECase):
    """A compiled step with further inputs and with tokens, from the files that a job names."""

    def train(self, options, steps=60):
        job = self.submit(name="train-step", ranks=2, steps=steps, interval=steps, task={"name": "train_step", "options": options},
                          runner={"optim": {"type": "adam", "lr": 0.05}, "dataloader": {"batch_size": 16}})
        return self.cluster.wait_job(job, timeout=240)["progress"]["metrics"]

    def package(self, source):
        path = self.folder / "net.py"
        path.write_text(source)
        return str(export(path, self.folder))

    def test_further_inputs_by_name_and_files_to_validate_on(self):
        import numpy
        package = self.package(SCALED)
        random = numpy.random.default_rng(3)
        files = {}
        for split, count in (("train", 256), ("val", 64)):
            arrays = {"x": random.random((count, 6)), "scale": random.random(count), "kind": random.integers(0, 4, count)}
            arrays["y"] = arrays["x"][:, 0] * arrays["scale"] + arrays["kind"]
            for name, array in arrays.items():
                files[split, name] = str(self.folder / f"{split}_{name}.npy")
                numpy.save(files[split, name], array)
        options = {"package": package}
        for prefix, split in (("", "train"), ("val_", "val")):
            options |= {f"{prefix}data": files[split, "x"], f"{prefix}target_file": files[split, "y"],
                        f"{prefix}input_files": {name: files[split, name] for name in ("scale", "kind")}}
        self.assertLess(self.train(options)["val.loss"], 0.1)

        wrong = self.submit(name="wrong", ranks=1, steps=1, task={"name": "train_step", "options": {**options, "input_files": {
            "scale": files["train", "scale"], "kind": files["train", "y"]}}})
        self.assertIn("input kind holds numbers that are not whole", self.cluster.wait_job(wrong, states={"FAILED"})["reason"])

    def test_token_files(self):
        import numpy
        for name, count in (("train", 4000), ("val", 400)):
            (numpy.arange(count) % 8).astype("u2").tofile(self.folder / f"{name}.bin")
        metrics = self.train({"package": self.package(TOKENS), "data": str(self.folder / "train.bin"), "val_data": str(self.folder / "val.bin")})
        self.assertLess(metrics["val.loss"], 0.05)


class SameAsPythonTest(E2ECase):
    """Same weights, data, order and optimizer, once in a Python loop and once as a job: the same loss."""

    def setUp(self):
        super().setUp()
        import torch
        sys.path.insert(0, str(MODEL.parent))
        import digits_model
        self.torch, self.source = torch, digits_model
        torch.set_num_threads(1)
        torch.manual_seed(0)
        self.model = digits_model.model()

    def python_loop(self, loss_function):
        """The mean loss over the test samples after STEPS updates; labelled_data.h says which samples those are."""
        torch = self.torch
        rows = torch.tensor([[float(cell) for cell in line.split(",")] for line in DIGITS.read_text().split()])
        images, labels = (rows[:, :-1] / 16).reshape(-1, 1, 8, 8), rows[:, -1].long()
        test = torch.arange(len(rows)) % 5 == 4
        train_images, train_labels = images[~test], labels[~test]
        optimizer = torch.optim.SGD(self.model.parameters(), lr=LR)
        place = 0
        self.model.train()
        for _ in range(STEPS):
            optimizer.zero_grad()
            loss_function(self.model(train_images[place:place + BATCH]), train_labels[place:place + BATCH]).backward()
            optimizer.step()
            place = place + BATCH if place + BATCH < len(train_images) else 0
        self.model.eval()
        with torch.no_grad():
            return loss_function(self.model(images[test]), labels[test]).item()

    def job(self, name, **options):
        job = self.submit(
            name=name.replace("_", "-"), ranks=1, steps=STEPS, interval=STEPS,
            task={"name": name, "options": {"data": str(DIGITS), "scale": 16, **options}},
            runner={"optim": {"type": "sgd", "lr": LR}, "dataloader": {"batch_size": BATCH, "shuffle": False, "num_workers": 0}})
        final = self.cluster.wait_job(job, timeout=240)
        return final["progress"]["metrics"]["test.loss"]

    def test_torchscript(self):
        from torch.nn.functional import cross_entropy
        module = self.folder / "model.pt"
        self.torch.jit.save(self.torch.jit.script(self.model), str(module))
        found = self.job("torchscript", module=str(module), sample_shape=[1, 8, 8], classes=10)
        self.assertAlmostEqual(found, self.python_loop(cross_entropy), places=5)

    def test_train_step_compiled_from_python(self):
        package = export(MODEL, self.folder)
        found = self.job("train_step", package=str(package))
        self.assertAlmostEqual(found, self.python_loop(self.source.loss), places=5)

        job = self.cluster.submit(ROOT / "examples/jobs/train_step.yaml", "--set", f"task.options.package={package}")
        metrics = self.cluster.wait_job(job, timeout=240)["progress"]["metrics"]
        self.assertGreater(metrics["test.accuracy"], 0.95)


if __name__ == "__main__":
    main()
