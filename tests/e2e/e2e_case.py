"""Base of the end-to-end tests: a cluster of real processes per test, and the promise that nothing is left behind."""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

from local_cluster import ClusterError, LocalCluster, Process, poll  # noqa: E402,F401

BUILD = pathlib.Path(os.environ.get("ATHANOR_BUILD", ROOT / "build/release"))
DIGITS = ROOT / "examples/data/digits/digits.csv"


def job_spec(name="digits", steps=400, interval=20, ranks=2, env=None, runner=None, restart=None, timeouts=None, task=None, **top):
    """A small digits job; a step takes 1-3 ms here, so `steps` sets the length."""
    spec = {
        "name": name,
        "task": task or {"name": "digits_mlp", "options": {"data": str(DIGITS)}},
        "resources": {"ranks": ranks},
        "runner": {
            "seed": 7, "deterministic": True, "steps": steps, "log_interval": 10,
            "optim": {"type": "adamw", "lr": 0.002},
            "dataloader": {"batch_size": 32},
            "checkpoint": {"interval": interval, "keep_latest_k": 3},
            **(runner or {}),
        },
        "restart": {"budgets": {"signal": -1, "peer_lost": -1, "hang": -1, "node_lost": -1}, "backoff_initial": "50ms",
                    "backoff_max": "200ms", "max_generations_without_progress": 20, **(restart or {})},
        "timeouts": {"join": "30s", "startup": "60s", "hang": "5s", "stop_grace": "10s", **(timeouts or {})},
        **top,
    }
    if env:
        spec["env"] = env
    return spec


def faulty_task(**options):
    """digits_mlp with a fault of choice: tests/support/faulty_task/faulty_task.cc."""
    library = BUILD / "tests/support/faulty_task/libfaulty_task.so"
    return {"name": "faulty", "library": str(library), "options": {"data": str(DIGITS), **options}}


class E2ECase(unittest.TestCase):
    """`self.cluster` is up in each test; class attributes shape it."""

    agents = 2
    slots = 2
    lease = "3s"
    coordinator_args = ()
    agent_args = ()

    def setUp(self):
        self._folder = tempfile.TemporaryDirectory(prefix="ath-")
        self.folder = pathlib.Path(self._folder.name)
        self._shared_memory_before = set(os.listdir("/dev/shm"))
        self.cluster = LocalCluster(BUILD, self.folder / "c", agents=self.agents, slots=self.slots, lease=self.lease,
                                    coordinator_args=self.coordinator_args, agent_args=self.agent_args)
        self.addCleanup(self._folder.cleanup)
        self.addCleanup(self._stop)
        self.cluster.start()

    def _stop(self):
        failed = self._outcome_failed()
        if failed:
            self._print_logs()
        self.cluster.stop(quiet=failed)
        if failed:
            return
        self.assertEqual(self._processes_left(), [], "processes are left behind")
        self.assertEqual(self._sockets_left(), [], "sockets are left behind")
        self.assertEqual(set(os.listdir("/dev/shm")) - self._shared_memory_before, set(), "shared memory is left behind")
        left = [str(p) for p in self.folder.rglob("*") if p.name.endswith(".tmp") or ".tmp." in p.name]
        self.assertEqual(left, [], "temporary files are left behind")

    def _outcome_failed(self):
        result = self._outcome.result
        return any(test is self for test, _ in [*result.failures, *result.errors])

    def _print_logs(self):
        for path in sorted((self.folder / "c").rglob("*.log")):
            print(f"---- {path.relative_to(self.folder)}\n{path.read_bytes()[-3000:].decode(errors='replace')}", file=sys.stderr)

    def _processes_left(self):
        marker = str(self.folder).encode()
        left = []
        for entry in pathlib.Path("/proc").iterdir():
            try:
                if entry.name.isdigit() and int(entry.name) != os.getpid():
                    text = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
                    if marker in text and b"athanor" in (entry / "cmdline").read_bytes():
                        left.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode())
            except OSError:
                continue
        return left

    def _sockets_left(self):
        return [str(p) for p in self.folder.rglob("*") if p.is_socket()]

    def start_another_agent(self, label, /, of="agent-0", **changes):
        """An agent that is started as `of` is, but for the options in `changes` (work_dir=…); its ports are not waited for."""
        argv = list(self.cluster.agents[of].argv)
        ports = self.folder / f"{label}.ports"
        for option, value in {"work_dir": self.folder / label, "ports_file": ports, **changes}.items():
            argv[argv.index("--" + option.replace("_", "-")) + 1] = str(value)
        another = Process(label, argv, self.folder / f"{label}.log", ports).start(wait=False)
        self.addCleanup(another.stop)
        return another

    # ---- jobs ----
    def write_job(self, spec, name="job.yaml"):
        path = self.folder / name
        path.write_text(json.dumps(spec))  # JSON is YAML
        return path

    def submit(self, *args, **kwargs):
        return self.cluster.submit(self.write_job(job_spec(**kwargs)), *args)

    def hold(self, step):
        """A task whose rank 0 waits at `step` until release(); only the first generation does."""
        self._fifo = self.folder / "hold"
        os.mkfifo(self._fifo)
        return faulty_task(hold_at_step=step, hold_fifo=str(self._fifo), rank=0, once_file=str(self.folder / "held"))

    def release(self):
        def opened():
            try:
                os.close(os.open(self._fifo, os.O_WRONLY | os.O_NONBLOCK))
                return True
            except OSError:  # nobody waits at it yet
                return False
        poll(opened, 60, "the held rank waits at its pipe", interval=0.01)

    def final_weights(self, job):
        """{name: bytes} of the model in the newest committed checkpoint, read with Python's safetensors."""
        newest = max(self.cluster.checkpoints(job), key=lambda c: int(c["step"]))
        return int(newest["step"]), read_weights(newest["path"])

    def undisturbed_weights(self, **kwargs):
        job = self.submit(name="undisturbed", **kwargs)
        self.cluster.wait_job(job)
        return self.final_weights(job)


def fill(path):
    """Writes until the disk is full."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT)
    try:
        while os.write(fd, b"x" * 4096):
            pass
    except OSError:
        pass
    finally:
        os.close(fd)


class SmallDisks:
    """For E2ECase: folders on file systems of their own, which a test can fill."""

    def small(self, folder, size):
        if os.geteuid() != 0:
            self.skipTest("mounting a small tmpfs needs root")
        folder.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=0700", "tmpfs", str(folder)], capture_output=True)
        if done.returncode != 0:
            self.skipTest("cannot mount a tmpfs here")
        self.mounts = [*getattr(self, "mounts", []), folder]

    def tearDown(self):
        for folder in getattr(self, "mounts", []):
            subprocess.run(["umount", "-l", str(folder)], check=False)
        super().tearDown()


def read_weights(folder):
    from safetensors import safe_open
    weights = {}
    for shard in sorted(pathlib.Path(folder).glob("*.safetensors")):
        with safe_open(shard, framework="np") as tensors:
            for name in tensors.keys():
                if name.startswith("model."):
                    weights[name] = tensors.get_tensor(name).tobytes()
    return weights


def main():
    unittest.main(verbosity=2)
