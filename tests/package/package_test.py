"""The installed package in the hands of a stranger, and what the programs may and may not link."""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ["ATHANOR_BUILD"])
sys.path.insert(0, str(ROOT / "scripts"))
import local_cluster  # noqa: E402

TORCH = next((ROOT / ".venv").glob("lib/python3*/site-packages/torch"))
# A pure core asks nobody for the time, starts no thread and opens nothing.
IMPURE = re.compile(r"absl\S*3NowEv|clock_gettime|gettimeofday|pthread_create|\bopen64?\b|\bfopen|random_device|\bsocket\b|std::thread")


def run(*argv, **kwargs):
    done = subprocess.run([str(a) for a in argv], capture_output=True, text=True, timeout=600, **kwargs)
    assert done.returncode == 0, f"{argv}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
    return done.stdout


class InstalledCluster(local_cluster.LocalCluster):
    """The programs of an installed package."""

    def program(self, name):
        return self.build / "bin" / name


class PackageTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls._folder = tempfile.TemporaryDirectory(prefix="ath-")
        cls.folder = pathlib.Path(cls._folder.name)
        run("cmake", "--install", BUILD, "--prefix", cls.folder / "first")
        cls.prefix = cls.folder / "elsewhere"  # the package can be moved
        (cls.folder / "first").rename(cls.prefix)

    @classmethod
    def tearDownClass(cls):
        cls._folder.cleanup()

    def test_a_strangers_project_builds_and_trains(self):
        source = self.folder / "consumer"
        shutil.copytree(self.prefix / "share/athanor/examples/project", source)
        build = self.folder / "build"
        run("cmake", "-G", "Ninja", "-S", source, "-B", build, f"-DCMAKE_PREFIX_PATH={self.prefix}",
            f"-DATHANOR_TORCH_ROOT={TORCH}", "-DCMAKE_BUILD_TYPE=Release")
        run("cmake", "--build", build)
        self.assertIn("optim.lr", run(build / "plan"))
        self.assertIn("resumed from 40", run(build / "train", cwd=self.folder))
        self.assertNotIn("libtorch", run("ldd", build / "plan"))
        self.assertTrue((self.folder / "run/summary.json").exists())
        self.train_by_task_library(build / "libcustom_task.so")
        self.assertTrue((build / "libcustom_task_plain.so").exists())

    def test_each_module_brings_libtorch_along(self):
        source = self.folder / "alone"
        source.mkdir()
        (source / "CMakeLists.txt").write_text("""cmake_minimum_required(VERSION 3.25)
project(alone CXX)
find_package(athanor 0.1 REQUIRED COMPONENTS core train)
foreach(module IN ITEMS data io metrics optim parallel checkpoint runner tools)
  get_target_property(links athanor::${module} INTERFACE_LINK_LIBRARIES)
  if(NOT athanor::torch IN_LIST links)
    message(FATAL_ERROR "athanor::${module} leaves LibTorch out: ${links}")
  endif()
endforeach()
""")
        run("cmake", "-G", "Ninja", "-S", source, "-B", self.folder / "alone-build", f"-DCMAKE_PREFIX_PATH={self.prefix}",
            f"-DATHANOR_TORCH_ROOT={TORCH}")

    def train_by_task_library(self, library):
        """A task library built against the package, in the package's own service."""
        example = self.prefix / "share/athanor/examples/jobs/custom_task.yaml"
        with InstalledCluster(self.prefix, self.folder / "cluster", agents=1) as cluster:
            done = cluster.cli("job", "submit", example, "--set", f"task.library={library}", "--set", "runner.steps=100",
                               "--watch", timeout=120)
            self.assertIn("succeeded: finished at step 100", done.stderr)

    def test_what_a_stranger_reads_is_in_the_package(self):
        docs = self.prefix / "share/doc/athanor"
        for page in [docs / "README.md", *sorted((docs / "docs").rglob("*.md"))]:
            for target in re.findall(r"\]\(([\w./-]+)(?:#[\w-]+)?\)", page.read_text()):
                self.assertTrue((page.parent / target).exists(), f"{page.name} links to {target}")
        share = self.prefix / "share/athanor"
        for name in ("examples/jobs/digits.yaml", "examples/data/digits/digits.csv", "examples/cpp/01_mlp.cc",
                     "examples/tasks/05_custom_task.cc", "examples/torchscript/export.py", "scripts/export_train_step.py",
                     "scripts/athanor_train_step/model.py", "examples/torchscript/two_inputs.py",
                     "deploy/systemd/athanord.service", "deploy/prometheus/alerts.yaml"):
            self.assertTrue((share / name).is_file(), name)
        run(ROOT / ".venv/bin/python", share / "scripts/export_train_step.py", "--help")

    def test_every_installed_header_is_public_and_alone_compiles_nothing_of_the_service(self):
        headers = [p.relative_to(self.prefix / "include").as_posix() for p in (self.prefix / "include").rglob("*.h")]
        self.assertGreater(len(headers), 40)
        self.assertTrue(all(h.startswith("athanor/") for h in headers), headers)
        for header in headers:
            text = (self.prefix / "include" / header).read_text()
            for include in re.findall(r'#include [<"]([^>"]+)[>"]', text):
                self.assertNotRegex(include, r"grpc|google/protobuf|rocksdb|spdlog|^server/|^worker/|^client/|^common/", header)
                if include.startswith("athanor/"):
                    self.assertIn(include, headers, f"{header} includes a header that is not installed")

    def test_only_the_trainer_links_libtorch(self):
        for name in ("athanord", "athanor-agent", "athanor"):
            self.assertNotIn("libtorch", run("ldd", self.prefix / "bin" / name), name)
        trainer = run("ldd", self.prefix / "bin/athanor-trainer")
        self.assertIn("libtorch_cpu", trainer)
        self.assertNotIn("librocksdb", trainer)
        self.assertIn("0.1", run(self.prefix / "bin/athanor", "version"))

    def test_the_cores_are_pure(self):
        objects = list((BUILD / "server/core").rglob("*.o")) + list((BUILD / "worker/agent").rglob("agent_core.cc.o"))
        self.assertGreater(len(objects), 5)
        for path in objects:
            for line in run("nm", "-u", path).splitlines():
                self.assertIsNone(IMPURE.search(line), f"{path.name}: {line.strip()}")


if __name__ == "__main__":
    unittest.main(verbosity=2)
