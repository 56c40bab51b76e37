"""Each kind of task, submitted as a user would: the job files of examples/jobs; and models of Python against PyTorch's own loop."""

import os
import pathlib
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
        package = self.folder / "model.train_step"
        environment = {**os.environ, "TMPDIR": str(self.folder), "TORCHINDUCTOR_CACHE_DIR": str(self.folder / "cache")}
        subprocess.run([sys.executable, str(ROOT / "scripts/export_train_step.py"), str(MODEL), "-o", str(package), "--seed", "0"],
                       check=True, timeout=600, env=environment)
        found = self.job("train_step", package=str(package))
        self.assertAlmostEqual(found, self.python_loop(self.source.loss), places=5)

        job = self.cluster.submit(ROOT / "examples/jobs/train_step.yaml", "--set", f"task.options.package={package}")
        metrics = self.cluster.wait_job(job, timeout=240)["progress"]["metrics"]
        self.assertGreater(metrics["test.accuracy"], 0.95)


if __name__ == "__main__":
    main()
