"""A coordinator and agents of one build, as real processes on loopback: for the demo, `make serve`, the benchmarks and the
end-to-end tests. Standard library only.

    with LocalCluster(build, folder, agents=2) as cluster:
        job = cluster.submit("examples/jobs/digits.yaml")
        cluster.wait_job(job, states={"SUCCEEDED"}, timeout=60)
"""

import ctypes
import json
import os
import pathlib
import signal
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.request

ROOT = pathlib.Path(__file__).resolve().parent.parent
PROGRAMS = {
    "athanord": "server/athanord",
    "athanor-agent": "worker/agent/athanor-agent",
    "athanor-trainer": "worker/trainer/athanor-trainer",
    "athanor": "client/athanor",
}
FINAL_STATES = {"SUCCEEDED", "FAILED", "CANCELLED"}
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True)


class ClusterError(RuntimeError):
    pass


def _die_with_parent():
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def poll(check, timeout, what, interval=0.02):
    """Calls `check` until it returns something true; the deadline is a failure that names `what` and the last value."""
    deadline = time.monotonic() + timeout
    while True:
        value = check()
        if value:
            return value
        if time.monotonic() > deadline:
            raise ClusterError(f"not within {timeout} s: {what} (last: {value!r})")
        threading.Event().wait(interval)


class Process:
    """One daemon with its log file and the ports that it chose."""

    def __init__(self, name, argv, log, ports_file=None, env=None):
        self.name, self.argv, self.log, self.ports_file, self.env = name, [str(a) for a in argv], log, ports_file, env
        self.popen = None
        self.cwd = None
        self.ports = {}

    def start(self, wait=True):
        if self.ports_file:
            self.ports_file.unlink(missing_ok=True)
        with open(self.log, "ab") as out:
            self.popen = subprocess.Popen(
                self.argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out, env={**os.environ, **(self.env or {})},
                cwd=self.cwd, preexec_fn=_die_with_parent)
        if wait and self.ports_file:
            self.wait_ports()
        return self

    def wait_ports(self, timeout=20):
        def ready():
            if self.popen.poll() is not None:
                raise ClusterError(f"{self.name} ended with {self.popen.returncode}:\n{self.tail()}")
            return self.ports_file.exists()
        poll(ready, timeout, f"{self.name} serves\n{self.tail()}", interval=0.005)
        self.ports = json.loads(self.ports_file.read_text())

    def tail(self, size=4000):
        try:
            return self.log.read_bytes()[-size:].decode(errors="replace")
        except FileNotFoundError:
            return ""

    def signal(self, number):
        self.popen.send_signal(number)

    def kill(self):
        if self.popen and self.popen.poll() is None:
            self.popen.kill()
        if self.popen:
            self.popen.wait(20)

    def stop(self, timeout=40):
        if self.popen and self.popen.poll() is None:
            self.popen.terminate()
            try:
                self.popen.wait(timeout)
            except subprocess.TimeoutExpired:
                self.kill()
                raise ClusterError(f"{self.name} did not stop within {timeout} s\n{self.tail()}") from None
        return self.popen.returncode if self.popen else None


class LocalCluster:
    def __init__(self, build, folder=None, agents=2, slots=2, coordinator_args=(), agent_args=(), coordinator_env=None,
                 agent_env=None, lease="5s"):
        self.build = pathlib.Path(build).resolve()
        self._temporary = None
        if folder is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="athanor-")
            folder = self._temporary.name
        self.folder = pathlib.Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.data_dir = self.folder / "coordinator"
        self.checkpoint_root = self.folder / "checkpoints"
        self.lease = lease
        self.coordinator_args, self.coordinator_env = list(coordinator_args), coordinator_env
        self.agent_args, self.agent_env, self.slots = list(agent_args), agent_env, slots
        self.coordinator = None
        self.agents = {}
        self._agent_count = agents
        self._address = None

    # ---- life cycle ----
    def __enter__(self):
        try:
            self.start()
        except BaseException:
            self.stop(quiet=True)
            raise
        return self

    def __exit__(self, *_):
        self.stop()

    def program(self, name):
        path = self.build / PROGRAMS[name]
        if not path.exists():
            raise ClusterError(f"{path} is missing: build it first (make build)")
        return path

    def start(self):
        self.start_coordinator()
        for index in range(self._agent_count):
            self.start_agent(f"agent-{index}")
        self.wait_workers(self._agent_count)

    def start_coordinator(self, wait=True):
        listen = self._address or "127.0.0.1:0"
        metrics = f"127.0.0.1:{self.coordinator.ports['metrics']}" if self.coordinator and self.coordinator.ports else "127.0.0.1:0"
        ports = self.folder / "coordinator.ports"
        argv = [self.program("athanord"), "--data-dir", self.data_dir, "--listen", listen, "--metrics-listen", metrics,
                "--checkpoint-root", self.checkpoint_root, "--lease", self.lease, "--ports-file", ports, *self.coordinator_args]
        ports_before = self.coordinator.ports if self.coordinator else {}
        self.coordinator = Process("athanord", argv, self.folder / "coordinator.log", ports, self.coordinator_env)
        self.coordinator.ports = ports_before
        self.coordinator.start(wait)
        if wait:
            self._address = f"127.0.0.1:{self.coordinator.ports['grpc']}"
        return self.coordinator

    def start_agent(self, name, wait=True, extra=(), env=None):
        ports = self.folder / f"{name}.ports"
        argv = [self.program("athanor-agent"), "--coordinator", self.address, "--name", name, "--slots", self.slots,
                "--work-dir", self.folder / name, "--trainer", self.program("athanor-trainer"), "--metrics-listen", "127.0.0.1:0",
                "--ports-file", ports, *self.agent_args, *extra]
        self.agents[name] = Process(name, argv, self.folder / f"{name}.log", ports, {**(self.agent_env or {}), **(env or {})})
        self.agents[name].start(wait)
        return self.agents[name]

    @property
    def address(self):
        return self._address

    def stop(self, quiet=False):
        errors = []
        for process in [*self.agents.values(), self.coordinator]:
            if process is None:
                continue
            try:
                process.stop()
            except ClusterError as error:
                errors.append(str(error))
        if self._temporary:
            self._temporary.cleanup()
        if errors and not quiet:
            raise ClusterError("\n".join(errors))

    # ---- the command line ----
    def cli(self, *args, check=True, timeout=60, parse=False, env=None):
        argv = [str(self.program("athanor")), "--server", self.address, *map(str, args)]
        if parse:
            argv += ["--output", "json"]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL,
                              env={**os.environ, "NO_COLOR": "1", **(env or {})})
        if check and done.returncode != 0:
            raise ClusterError(f"`athanor {' '.join(map(str, args))}` ended with {done.returncode}: {done.stderr.strip()}")
        return json.loads(done.stdout) if parse else done

    def submit(self, job_file, *args, timeout=30):
        path = pathlib.Path(job_file)
        path = path if path.is_absolute() else ROOT / path
        return self.cli("job", "submit", path, *args, parse=True, timeout=timeout)["job"]

    def job(self, job):
        return self.cli("job", "get", job, parse=True)

    def step(self, job):
        return int(self.job(job).get("progress", {}).get("step", 0))

    def wait_job(self, job, states=frozenset({"SUCCEEDED"}), timeout=120):
        def there():
            found = self.job(job)
            state = found.get("state")
            if state in FINAL_STATES and state not in states:
                raise ClusterError(f"{job} is {state}, not {sorted(states)}: {found.get('reason')}\n{self.explain(job)}")
            return found if state in states else None
        return poll(there, timeout, f"{job} in {sorted(states)}", interval=0.1)

    def wait_step(self, job, step, timeout=60):
        return poll(lambda: self.step(job) >= step, timeout, f"{job} at step {step}", interval=0.05)

    def wait_event(self, job, kind, count=1, timeout=60):
        def seen():
            events = [e for e in self.events(job) if e.get("type") == kind]
            return events if len(events) >= count else None
        return poll(seen, timeout, f"{count} x {kind} of {job}", interval=0.05)

    def events(self, job):
        return self.cli("job", "events", job, parse=True).get("events", [])

    def explain(self, job):
        return self.cli("job", "explain", job, check=False).stdout

    def checkpoints(self, job):
        return self.cli("checkpoint", "list", job, parse=True).get("checkpoints", [])

    def wait_workers(self, count, state="READY", timeout=20):
        def ready():
            workers = self.cli("worker", "list", parse=True, check=True).get("workers", [])
            return len([w for w in workers if w.get("state") == state]) >= count
        return poll(ready, timeout, f"{count} workers {state}", interval=0.05)

    # ---- processes ----
    def ranks(self, job=None):
        """{(job, generation, rank): pid} of the trainers that run now, read from their environment."""
        found = {}
        for entry in pathlib.Path("/proc").iterdir():
            if not entry.name.isdigit():
                continue
            try:
                if b"athanor-trainer" not in (entry / "cmdline").read_bytes().split(b"\0")[0]:
                    continue
                variables = dict(v.split(b"=", 1) for v in (entry / "environ").read_bytes().split(b"\0") if b"=" in v)
            except (OSError, ValueError):
                continue
            socket = variables.get(b"ATHANOR_AGENT_SOCKET", b"").decode()
            name = variables.get(b"ATHANOR_JOB", b"").decode()
            if (job is not None and name != job) or not socket:
                continue
            found[(name, int(variables[b"ATHANOR_GENERATION"]), int(variables[b"RANK"]))] = int(entry.name)
        return found

    def kill_rank(self, job, rank, number=signal.SIGKILL):
        pids = [pid for (name, _, r), pid in sorted(self.ranks(job).items()) if r == rank]
        if not pids:
            return None
        os.kill(pids[-1], number)
        return pids[-1]

    # ---- metrics ----
    def scrape(self, process=None, path="/metrics"):
        process = process or self.coordinator
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{process.ports['metrics']}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
