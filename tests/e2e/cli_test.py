"""The command line as a person uses it: terminals, Ctrl-C, exit codes, completion, contexts, TLS and tokens."""

import json
import os
import pathlib
import pty
import re
import select
import shutil
import signal
import subprocess
import time
import unittest

from e2e_case import BUILD, E2ECase, job_spec, main, poll

CLI = str(BUILD / "client/athanor")


class Terminal:
    """A program on a pseudo terminal; `text` grows as it writes."""

    def __init__(self, argv, columns=100):
        self.text = ""
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.environ.update(TERM="xterm", COLUMNS=str(columns))
            os.environ.pop("NO_COLOR", None)
            os.execv(argv[0], argv)

    def read(self, timeout=0.1):
        while select.select([self.fd], [], [], timeout)[0]:
            try:
                data = os.read(self.fd, 65536)
            except OSError:
                return False
            if not data:
                return False
            self.text += data.decode(errors="replace")
        return True

    def wait_for(self, pattern, timeout=60):
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            open_ = self.read()
            if re.search(pattern, self.text):
                return
            if not open_:
                break
        raise AssertionError(f"{pattern!r} never came; the terminal shows:\n{self.text[-3000:]}")

    def exit_code(self, timeout=60):
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            self.read(0.05)
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                os.close(self.fd)
                return os.waitstatus_to_exitcode(status)
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        raise AssertionError(f"it never ended; the terminal shows:\n{self.text[-3000:]}")


class TerminalTest(E2ECase):
    def test_ctrl_c_detaches_and_the_job_goes_on(self):
        path = self.write_job(job_spec(name="watched", steps=400, task=self.hold(step=205), timeouts={"hang": "60s"}))
        terminal = Terminal([CLI, "--server", self.cluster.address, "job", "submit", str(path), "--watch"])
        terminal.wait_for(r"\d+/400")
        os.kill(terminal.pid, signal.SIGINT)
        self.assertEqual(terminal.exit_code(), 130, terminal.text)
        self.assertIn("job watch", terminal.text, "says how to come back")
        job = self.cluster.cli("job", "list", parse=True)["jobs"][0]["id"]
        self.assertEqual(self.cluster.job(job)["state"], "RUNNING")
        self.release()
        self.cluster.wait_job(job)

    def test_a_bar_on_a_terminal_and_plain_lines_elsewhere(self):
        path = self.write_job(job_spec(name="shown", steps=400, task=self.hold(step=205), timeouts={"hang": "60s"}))
        terminal = Terminal([CLI, "--server", self.cluster.address, "job", "submit", str(path), "--watch"])
        terminal.wait_for(r"\[=+.*\].*20\d/400")
        self.release()
        self.assertEqual(terminal.exit_code(), 0, terminal.text)
        self.assertRegex(terminal.text, r"loss [0-9.]+")
        self.assertRegex(terminal.text, r"samples/s")
        plain = self.cluster.cli("job", "submit", self.write_job(job_spec(name="plain", steps=50)), "--watch")
        self.assertNotIn("\x1b", plain.stdout + plain.stderr)
        self.assertNotIn("\r", plain.stdout + plain.stderr)

    def test_exit_codes(self):
        self.assertEqual(self.cluster.cli("job", "get", "no-such-job", check=False).returncode, 3)
        self.assertEqual(self.cluster.cli("job", "frobnicate", check=False).returncode, 2)
        done = subprocess.run([CLI, "--server", "127.0.0.1:9", "--timeout", "500ms", "job", "list"], capture_output=True, text=True, timeout=20)
        self.assertEqual(done.returncode, 5)
        self.assertEqual(len(done.stderr.strip().splitlines()), 1, done.stderr)
        self.assertIn("127.0.0.1:9", done.stderr)
        job = self.submit(name="gone", steps=10**7)
        self.cluster.wait_step(job, 1)
        self.cluster.cli("job", "cancel", job)
        self.assertEqual(self.cluster.cli("job", "watch", job, check=False).returncode, 7)

    def test_words_that_are_not_known_have_the_nearest_one(self):
        job = self.submit(name="digits", steps=30)
        self.cluster.wait_job(job)
        self.cluster.cli("checkpoint", "tag", job, "latest", "release-1")
        for args, code, said in ((("job", "sumbit", "x.yaml"), 2, "no command 'sumbit', did you mean 'submit'?"),
                                 (("job", "logs", job, "--folow"), 2, "no option '--folow', did you mean '--follow'?"),
                                 (("job", "get", "digts"), 3, "no job 'digts', did you mean 'digits'?"),
                                 (("checkpoint", "show", job, "relase-1"), 3, "did you mean 'release-1'?"),
                                 (("worker", "drain", "agent-o"), 3, "no worker 'agent-o', did you mean 'agent-0'?"),
                                 (("job", "logs", job, "--generation", 7), 3, f"{job} has no generation 7; allowed: 1 to 1"),
                                 (("job", "logs", job, "--generation", 7, "--follow"), 3, "has no generation 7"),
                                 (("job", "logs", job, "--rank", 2), 3, f"{job} has no rank 2; allowed: 0 to 1"),
                                 (("job", "events", job, "--type", "Placd"), 0, "no event of type 'Placd', did you mean 'Placed'?; the job has: "),
                                 (("job", "events", job, "--follow", "--type", "Placd"), 0, "no event of type 'Placd', did you mean 'Placed'?"),
                                 (("job", "submit"), 2, "athanor job submit: file is required (athanor job submit --help)"),
                                 (("status", "-o", "xml"), 2, "athanor status: --output: xml not in {table,json,yaml}"),
                                 (("job", "list", "--state", "runing"), 2, "allowed: queued, running")):
            with self.subTest(args):
                done = self.cluster.cli(*args, check=False)
                self.assertEqual(done.returncode, code, done.stderr)
                self.assertIn(said, done.stderr)
                self.assertEqual(len(done.stderr.strip().splitlines()), 1)

    def test_a_name_of_several_jobs_takes_the_newest_with_a_note(self):
        first, second = self.submit(name="twice", steps=30), self.submit(name="twice", steps=30)
        for job in (first, second):
            self.cluster.wait_job(job)
        for args in (("job", "get", "twice"), ("job", "events", "twice"), ("job", "logs", "twice"), ("job", "watch", "twice", "--quiet", "-o", "json"),
                     ("checkpoint", "list", "twice")):
            with self.subTest(args):
                done = self.cluster.cli(*args)
                if "--quiet" not in args:
                    self.assertEqual(done.stderr.count(f"'twice' names 2 jobs: {second} (succeeded), {first} (succeeded); took {second}"), 1, done.stderr)
        refused = self.cluster.cli("checkpoint", "tag", "twice", "latest", "good", check=False)
        self.assertEqual(refused.returncode, 4, "a verb does not choose among jobs that are over")
        live = self.submit(name="twice", steps=10**7)
        done = self.cluster.cli("job", "cancel", "twice")
        self.assertEqual(done.stdout.strip(), live)
        self.assertIn(f"took {live}", done.stderr)

    def test_text_that_is_not_utf8_is_named(self):
        job = self.submit(name="text", steps=10**7)
        path = self.write_job(job_spec(name="text"))
        wrong = "gr\udcfc\udcdf"  # bytes 0xfc 0xdf
        for args, said in ((("job", "cancel", job, "--reason", wrong), "reason: byte 3 is not UTF-8"),
                           (("job", "submit", path, "--label", f"team={wrong}"), "--label: byte 8 is not UTF-8"),
                           (("job", "get", wrong), "job: byte 3 is not UTF-8"),
                           (("job", "logs", wrong), "job: byte 3 is not UTF-8"), (("job", "watch", wrong), "job: byte 3 is not UTF-8"),
                           (("checkpoint", "tag", job, "1", wrong), "tag: byte 3 is not UTF-8"), (("worker", "drain", wrong), "worker: byte 3")):
            with self.subTest(args[:2]):
                done = self.cluster.cli(*args, check=False)
                self.assertEqual(done.returncode, 2, done.stderr)
                self.assertIn(said, done.stderr)
        self.cluster.cli("job", "cancel", job)

    def test_a_deadline_says_where_the_job_is(self):
        job = self.submit(name="held", steps=400, task=self.hold(step=205), timeouts={"hang": "60s", "stop_grace": "60s"})
        self.cluster.wait_step(job, 200)
        late = self.cluster.cli("job", "suspend", job, "--wait", "--timeout", "500ms", check=False)
        self.assertEqual(late.returncode, 5)
        self.assertIn(f"{job} is still Suspending after 500ms (--timeout)", late.stderr)
        self.assertNotIn("athanord", late.stderr, "the coordinator runs")
        self.release()

    def test_a_job_from_standard_input(self):
        text = json.dumps(job_spec(name="piped", steps=20))
        done = subprocess.run([CLI, "--server", self.cluster.address, "job", "submit", "-"], input=text, capture_output=True, text=True, timeout=30)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.cluster.wait_job(done.stdout.strip())
        wrong = subprocess.run([CLI, "--server", self.cluster.address, "job", "submit", "-"], input="name: A\n", capture_output=True, text=True, timeout=30)
        self.assertIn('standard input:1:1: name: found "A"', wrong.stderr)

    def test_scalars_reach_the_rank_as_they_are_written(self):
        path = self.folder / "written.yaml"
        path.write_text(json.dumps(job_spec(name="written", steps=400, task=self.hold(step=205), timeouts={"hang": "60s"}))[:-1] +
                        ', "env": {VERSION: 3.10, ZIP: 01234, FLAG: True}, "labels": {version: 3.10}}')
        job = self.cluster.submit(path, "--set", "env.SET=1.20", "--set", "labels.zip=01234")
        self.cluster.wait_step(job, 200)
        pid = next(iter(self.cluster.ranks(job).values()))
        environment = pathlib.Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
        for wanted in (b"VERSION=3.10", b"ZIP=01234", b"FLAG=True", b"SET=1.20"):
            self.assertIn(wanted, environment)
        self.assertEqual(self.cluster.job(job)["spec"]["labels"], {"version": "3.10", "zip": "01234"})
        self.release()
        self.cluster.wait_job(job)

    def test_a_train_step_of_another_precision_is_refused_at_submit(self):
        job = job_spec(task={"name": "train_step", "options": {"data": "x.csv", "package": "p"}}, runner={"precision": "bf16"})
        for more in ((), ("--dry-run",)):
            refused = self.cluster.cli("job", "submit", self.write_job(job), *more, check=False)
            self.assertEqual(refused.returncode, 2)
            self.assertIn('runner.precision: found "bf16"', refused.stderr)

    def test_a_dry_run_checks_the_options_of_the_task(self):
        def dry_run(name, options, **task):
            job = job_spec(task={"name": name, "options": {"data": "/nowhere/x.csv", **options}, **task})
            return self.cluster.cli("job", "submit", self.write_job(job), "--dry-run", check=False)

        good = dry_run("digits_mlp", {"dropout": 0.5})  # data is not read: it may be on the workers only
        self.assertEqual((good.returncode, good.stderr), (0, ""))
        self.assertIn("valid", good.stdout)
        for name, options, found in (("digits_mlp", {"droput": 0.5}, 'task.options.droput: unknown key, did you mean "dropout"'),
                                     ("digits_mlp", {"dropout": 2}, "task.options.dropout: found 2"),
                                     ("torchscript", {"module": "m.pt"}, "task.options.classes: missing"),
                                     ("digits_mpl", {}, 'did you mean "digits_mlp"')):
            refused = dry_run(name, options)
            self.assertEqual((refused.returncode, refused.stdout), (2, ""))
            self.assertIn(found, refused.stderr)
        broken = self.folder / "net.pt"
        broken.write_bytes(b"PK\x03\x04 cut off")
        package = self.folder / "net.train_step"
        package.mkdir()
        (package / "train_step.json").write_text("{")
        for name, options, found in (("torchscript", {"module": __file__, "classes": 2}, "task.options.module: "),
                                     ("torchscript", {"module": str(broken), "classes": 2}, "task.options.module: "),
                                     ("train_step", {"package": str(self.folder)}, "is no train-step package"),
                                     ("train_step", {"package": str(package)}, "train_step.json is damaged")):
            refused = dry_run(name, options)
            self.assertEqual((refused.returncode, refused.stdout), (2, ""), name)
            self.assertIn(found, refused.stderr)
        on_the_workers = dry_run("torchscript", {"module": "/nowhere/net.pt", "classes": 2})
        self.assertEqual((on_the_workers.returncode, on_the_workers.stderr), (0, ""))
        elsewhere = dry_run("mine", {}, library="/nowhere/libmine.so")
        self.assertEqual(elsewhere.returncode, 0)
        self.assertIn("task options were not checked: task.library: cannot read /nowhere/libmine.so", elsewhere.stderr)

    def test_a_dry_run_without_a_trainer_says_what_was_not_checked(self):
        alone = shutil.copy(CLI, self.folder / "athanor")
        path = self.write_job(job_spec(task={"name": "digits_mlp", "options": {"data": "x.csv", "droput": 1}}))
        done = subprocess.run([alone, "--server", self.cluster.address, "job", "submit", path, "--dry-run", "-o", "json"],
                              env={"PATH": str(self.folder)}, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertTrue(json.loads(done.stdout)["ranks"])
        self.assertIn("task options were not checked: starting athanor-trainer", done.stderr)

    def test_every_output_format_and_every_help(self):
        job = self.submit(name="formats", steps=30)
        self.cluster.wait_job(job)
        for args in (("job", "list"), ("job", "get", job), ("job", "events", job), ("checkpoint", "list", job), ("worker", "list")):
            as_json = json.loads(self.cluster.cli(*args, "--output", "json").stdout)
            self.assertTrue(as_json)
            as_yaml = self.cluster.cli(*args, "--output", "yaml").stdout
            self.assertIn(":", as_yaml)
            self.assertNotIn("{", as_yaml.splitlines()[0])
            expected = {"worker": "agent-0", "checkpoint": "latest"}.get(args[0], "Succeeded" if args[1] == "events" else "formats")
            self.assertIn(expected, self.cluster.cli(*args).stdout)
        for group, verbs in {"job": "submit list get watch cancel suspend resume logs explain events", "checkpoint": "list show export tag untag delete",
                             "worker": "list drain undrain"}.items():
            for verb in verbs.split():
                text = self.cluster.cli(group, verb, "--help").stdout
                self.assertRegex(text, r"(?i)example", f"{group} {verb}")

    def test_exported_weights_are_one_file_for_pytorch(self):
        from safetensors.numpy import load_file
        job = self.submit(name="weights", steps=20)
        self.cluster.wait_job(job)
        _, expected = self.final_weights(job)
        target = self.folder / "w.safetensors"
        done = self.cluster.cli("checkpoint", "export", job, "latest", str(target))
        self.assertIn("w.safetensors", done.stdout)
        self.assertEqual({f"model.{name}": array.tobytes() for name, array in load_file(target).items()}, expected)
        half = self.cluster.cli("checkpoint", "export", job, "latest", str(self.folder / "half.pt"), "--dtype", "bf16")
        self.assertEqual(half.returncode, 0)
        self.assertGreater((self.folder / "half.pt").stat().st_size, 0)
        done = self.cluster.cli("checkpoint", "export", job, "latest", str(self.folder / "hf"), "--format", "hf", "--max-shard-size", "1KB", "--rename", "^=net.")
        self.assertIn("(hf, ", done.stdout)
        index = json.loads((self.folder / "hf/model.safetensors.index.json").read_text())["weight_map"]
        self.assertEqual({f"model.{name.removeprefix('net.')}" for name in index}, set(expected))
        self.cluster.cli("checkpoint", "import", str(self.folder / "hf"), str(self.folder / "back"), "--rename", "^net\\.=", "--step", "7")
        back = load_file(next((self.folder / "back/step-000000000007").glob("shard-*")))
        self.assertEqual({name: array.tobytes() for name, array in back.items()}, expected)
        size = self.cluster.cli("checkpoint", "export", job, "latest", str(self.folder / "x"), "--format", "hf", "--max-shard-size", "5 apples", check=False)
        self.assertEqual(size.returncode, 2)
        self.assertIn("--max-shard-size: found '5 apples'", size.stderr)
        wrong = self.cluster.cli("checkpoint", "export", job, "latest", str(self.folder / "w.bin"), check=False)
        self.assertEqual(wrong.returncode, 2)
        self.assertIn("allowed: .safetensors, .pt, .pth", wrong.stderr)

    def test_completion_in_the_shells(self):
        env = {**os.environ, "HOME": str(self.folder), "PATH": f"{pathlib.Path(CLI).parent}:{os.environ['PATH']}"}
        commands = {
            "bash": "source {0}; COMP_WORDS=(athanor job su); COMP_CWORD=2; $(complete -p athanor | sed 's/.*-F \\([^ ]*\\).*/\\1/') athanor su job;"
                    " echo ${{COMPREPLY[@]}}",
            "zsh": "autoload -U compinit; compinit -u; source {0}; athanor __complete job su",
            "fish": "source {0}; complete -C 'athanor job su'"}
        tried = 0
        for shell, command in commands.items():
            script = self.cluster.cli("completion", shell).stdout
            self.assertIn("__complete", script)
            if shutil.which(shell) is None:
                continue
            path = self.folder / f"completion.{shell}"
            path.write_text(script)
            done = subprocess.run([shell, "-c", command.format(path)], capture_output=True, text=True, timeout=30, env=env)
            self.assertEqual((done.returncode, done.stderr), (0, ""), shell)
            self.assertEqual(set(re.findall(r"su\w+", done.stdout)), {"submit", "suspend"}, shell)
            tried += 1
        self.assertGreater(tried, 0)


def certificates(folder):
    """An authority, a server's and a client's certificate, made with openssl."""
    def openssl(*args):
        subprocess.run(["openssl", *map(str, args)], check=True, capture_output=True, timeout=60, cwd=folder)
    openssl("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "ca.key", "-out", "ca.pem", "-days", "2", "-subj", "/CN=test authority")
    (folder / "san").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1")
    for name in ("server", "client"):
        openssl("req", "-newkey", "rsa:2048", "-nodes", "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        openssl("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-out", f"{name}.pem", "-days", "2",
                "-extfile", "san")
        os.chmod(folder / f"{name}.key", 0o600)


@unittest.skipUnless(shutil.which("openssl"), "needs the openssl program")
class CredentialsTest(E2ECase):
    agents = 0

    def setUp(self):
        super().setUp()
        self.cluster.stop()
        certificates(self.folder)
        self.token = self.folder / "token"
        self.token.write_text("token-canary-5d1e\n")
        self.token.chmod(0o600)
        f = self.folder
        self.cluster.coordinator_args = ["--tls-certificate", f / "server.pem", "--tls-key", f / "server.key", "--tls-ca", f / "ca.pem",
                                         "--token-file", self.token]
        self.cluster.agent_args = self.client_flags = ["--tls-ca", f / "ca.pem", "--tls-certificate", f / "client.pem", "--tls-key", f / "client.key",
                                                       "--token-file", self.token]
        self.cluster.start_coordinator()

    def test_mutual_tls_and_token(self):
        good = self.cluster.cli(*self.client_flags, "worker", "list", check=False)
        self.assertEqual(good.returncode, 0, good.stderr)
        wrong = self.folder / "wrong"
        wrong.write_text("something else\n")
        wrong.chmod(0o600)
        refused = self.cluster.cli(*self.client_flags[:-1], wrong, "worker", "list", check=False)
        self.assertNotEqual(refused.returncode, 0)
        self.assertIn(f"the token given is not this coordinator's: check --token-file (token of {wrong})", refused.stderr)
        missing = self.cluster.cli(*self.client_flags[:-2], "worker", "list", check=False)
        self.assertIn("this coordinator asks for a token: give --token-file", missing.stderr)
        for flags in ([], self.client_flags[:2], ["--token-file", self.token]):  # plain text, no certificate, no TLS
            done = self.cluster.cli(*flags, "--timeout", "2s", "worker", "list", check=False)
            self.assertNotEqual(done.returncode, 0, flags)

    def test_an_agent_says_why_it_is_not_let_in(self):
        wrong = self.folder / "wrong"
        wrong.write_text("something else 123\n")
        wrong.chmod(0o600)
        for name, flags, said in (("stranger", [*self.client_flags[:-1], wrong], "the token given is not this coordinator's"),
                                  ("plain", [], "speaks TLS, this agent speaks plain text: give --tls-ca")):
            with self.subTest(name):
                argv, self.cluster.agent_args = self.cluster.agent_args, flags
                agent = self.cluster.start_agent(name, wait=False)
                self.cluster.agent_args = argv
                poll(lambda: said in agent.tail(), 20, said)

    def test_plain_text_and_tls_that_meet_are_told_apart_at_once(self):
        plain = self.cluster.cli("worker", "list", check=False, timeout=10)  # long before --timeout
        self.assertEqual(plain.returncode, 5)
        self.assertIn("speaks TLS, this command speaks plain text: give --tls-ca", plain.stderr)
        self.assertEqual(len(plain.stderr.strip().splitlines()), 1, plain.stderr)
        watch = self.cluster.cli("job", "watch", "some", check=False, timeout=10)
        self.assertIn("speaks TLS", watch.stderr)
        other = self.folder / "other"
        other.mkdir()
        certificates(other)
        stranger = self.cluster.cli("--tls-ca", other / "ca.pem", *self.client_flags[2:], "worker", "list", check=False, timeout=10)
        self.assertIn("its certificate does not stand the check", stranger.stderr)
        self.cluster.stop()
        self.cluster.coordinator_args = []
        self.cluster.start_coordinator()
        tls = self.cluster.cli(*self.client_flags, "worker", "list", check=False, timeout=10)
        self.assertIn("speaks plain text, this command TLS: leave the TLS files out", tls.stderr)
        self.assertNotIn("E1", tls.stderr, "no line in gRPC's own format")

    def test_a_job_runs_over_tls_and_no_secret_shows(self):
        self.cluster.start_agent("agent-0")
        listed = lambda: self.cluster.cli(*self.client_flags, "worker", "list", parse=True).get("workers", [])
        poll(lambda: [w for w in listed() if w["state"] == "READY"], 30, "the agent is ready")
        path = self.write_job(job_spec(name="private", steps=50))
        done = self.cluster.cli(*self.client_flags, "job", "submit", path, "--watch", timeout=90)
        self.assertEqual(done.returncode, 0)
        for entry in pathlib.Path("/proc").iterdir():
            try:
                self.assertNotIn(b"token-canary", (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes(), entry)
            except OSError:
                continue
        for log in self.cluster.folder.rglob("*.log"):
            if self.cluster.data_dir not in log.parents:
                self.assertNotIn(b"token-canary", log.read_bytes(), log)

    def test_contexts(self):
        f = self.folder
        config = f / "config.yaml"
        config.write_text(json.dumps({"current": "lab", "contexts": {
            "lab": {"server": self.cluster.address, "ca": "ca.pem", "certificate": "client.pem", "key": str(f / "client.key"), "token_file": "~/token"},
            "dead": {"server": "127.0.0.1:9"}}}))
        def athanor(*args):
            return subprocess.run([CLI, *args], capture_output=True, text=True, timeout=30,
                                  env={**os.environ, "ATHANOR_CLI_CONFIG": str(config), "HOME": str(f)}, cwd="/")
        self.assertEqual(athanor("worker", "list").returncode, 0, athanor("worker", "list").stderr)
        self.assertEqual(athanor("--context", "dead", "--timeout", "500ms", "worker", "list").returncode, 5)
        unknown = athanor("--context", "lap", "worker", "list")
        self.assertEqual(unknown.returncode, 3)
        self.assertIn("no context 'lap', did you mean 'lab'?", unknown.stderr)
        self.assertEqual(athanor("--server", "127.0.0.1:9", "--timeout", "500ms", "worker", "list").returncode, 5, "flags win")

    def test_nothing_listens_beyond_loopback_unasked(self):
        done = subprocess.run([str(BUILD / "server/athanord"), "--data-dir", str(self.folder / "open"), "--listen", "0.0.0.0:0"],
                              capture_output=True, text=True, timeout=30)
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("--insecure", done.stderr)
        self.assertFalse((self.folder / "open/CURRENT").exists())


if __name__ == "__main__":
    main()
