"""Each kind of task, submitted as a user would: the job files of examples/jobs."""

import os
import pathlib
import subprocess
import sys

from e2e_case import BUILD, ROOT, E2ECase, main


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


if __name__ == "__main__":
    main()
