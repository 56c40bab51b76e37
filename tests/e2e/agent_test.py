"""Daemons as processes: crowds at their doors, closed descriptors."""

import contextlib
import os
import pathlib
import socket
import subprocess
import time

from e2e_case import E2ECase, SmallDisks, fill, main, poll


class CrowdTest(E2ECase):
    """More connections than there are descriptors: refused while they are there, forgotten when they are gone."""

    agents = 1

    def restart_with_few_descriptors(self, process):
        process.stop()
        process.argv = ["prlimit", "--nofile=256:256", *process.argv]
        process.start()

    @contextlib.contextmanager
    def crowd(self, family, address, process):
        with contextlib.ExitStack() as stack:
            for _ in range(400):
                one = stack.enter_context(socket.socket(family))
                one.settimeout(1)
                try:
                    one.connect(address)
                except OSError:
                    break
            self.assertEqual(self.cluster.scrape(process, "/healthz")[0], 503)
            yield

    def test_of_the_coordinator(self):
        self.restart_with_few_descriptors(self.cluster.agents["agent-0"])  # it may not live on old connections
        self.cluster.coordinator.argv = ["prlimit", "--nofile=256:256", *self.cluster.coordinator.argv]
        self.cluster.coordinator.stop()
        port = int(self.cluster.address.rsplit(":", 1)[1])
        argv = self.cluster.coordinator.argv
        argv[argv.index("--listen") + 1] = self.cluster.address
        self.cluster.coordinator.start()
        self.cluster.wait_workers(1)
        self.assertEqual(self.cluster.scrape(path="/healthz")[0], 200)
        with self.crowd(socket.AF_INET, ("127.0.0.1", port), self.cluster.coordinator):
            pass
        poll(lambda: self.cluster.scrape(path="/healthz")[0] == 200, 20, "health after the crowd")
        self.cluster.agents["agent-0"].kill()
        self.cluster.start_agent("agent-0")
        self.cluster.wait_job(self.submit(name="after", ranks=1, steps=20))

    def test_of_an_agent(self):
        agent = self.cluster.agents["agent-0"]
        self.restart_with_few_descriptors(agent)
        self.cluster.wait_workers(1)
        self.assertEqual(self.cluster.scrape(agent, "/healthz")[0], 200)
        path = str(self.cluster.folder / "agent-0/agent.sock")
        with self.crowd(socket.AF_UNIX, path, agent):
            pass
        poll(lambda: self.cluster.scrape(agent, "/healthz")[0] == 200, 20, "health after the crowd")
        self.cluster.wait_job(self.submit(name="after", ranks=1, steps=20))


class ContactTest(E2ECase):
    """What an agent says of a coordinator that it cannot reach, and of options that cannot work."""

    agents = 1

    def test_the_log_names_the_reason_once(self):
        lonely = self.start_another_agent("lonely", name="lonely", coordinator="127.0.0.1:9")
        poll(lambda: "Connection refused" in lonely.tail(), 20, "the reason")
        self.assertIn("WARNING athanor-agent NotConnected coordinator=127.0.0.1:9", lonely.tail())
        began = time.monotonic()
        poll(lambda: time.monotonic() - began > 2, 20, "more attempts")
        self.assertEqual(lonely.tail().count("NotConnected"), 1)
        self.assertIn("Connected coordinator=", self.cluster.agents["agent-0"].tail())

    def test_options_that_cannot_work_are_refused_at_the_start(self):
        agent, coordinator = self.cluster.program("athanor-agent"), self.cluster.program("athanord")
        for argv, said in (([agent, "--name", "A B"], "athanor-agent: --name: 'A B'; allowed: [a-z0-9]"),
                           ([agent, "--trainer", "/no/trainer"], "athanor-agent: --trainer: cannot run /no/trainer: No such file"),
                           ([agent, "--slotz", "2"], "athanor-agent: no option '--slotz', did you mean '--slots'? (athanor-agent --help)"),
                           ([agent, "--labels", "x"], "athanor-agent: --labels: 'x': expected name=value"),
                           ([coordinator, "--listn=127.0.0.1:0"], "athanord: no option '--listn', did you mean '--listen'?"),
                           ([coordinator, "--lease", "5"], "athanord: --lease: '5' is no duration"),
                           ([coordinator, "extra"], "athanord: The following argument was not expected: extra")):
            with self.subTest(argv[1]):
                done = subprocess.run([*argv, *(["--work-dir", self.folder / "w"] if argv[0] == agent else ["--data-dir", self.folder / "d"])],
                                      capture_output=True, text=True, timeout=20, stdin=subprocess.DEVNULL)
                self.assertEqual(done.returncode, 2, done.stderr)
                self.assertTrue(done.stderr.startswith(said), done.stderr)
                self.assertEqual(len(done.stderr.splitlines()), 1, done.stderr)


class FullWorkFolderTest(SmallDisks, E2ECase):
    agents = 0

    def test_ranks_train_on_and_new_ones_start_when_there_is_room(self):
        self.small(self.cluster.folder / "agent-0", "4m")
        agent = self.cluster.start_agent("agent-0")
        self.cluster.wait_workers(1)
        running = self.submit(name="running", steps=10**7, interval=10**6, ranks=1)
        self.cluster.wait_step(running, 100)
        ballast = self.cluster.folder / "agent-0/ballast"
        fill(ballast)
        step = self.cluster.step(running)
        self.cluster.wait_step(running, step + 200)
        refused = self.submit(name="refused", steps=20, ranks=1, restart={"budgets": {"launch_failed": 1000}})
        failed = self.cluster.wait_event(refused, "RankFailed")[0]
        self.assertIn("No space left on device", failed["message"])
        self.assertEqual(self.cluster.scrape(agent, "/healthz")[0], 200)
        ballast.unlink()
        self.cluster.cli("worker", "undrain", "agent-0", check=False)  # it may be in quarantine by now
        self.cluster.wait_job(refused)
        self.assertEqual(int(self.cluster.job(running)["generation"]), 1, "what ran was not disturbed")
        self.cluster.cli("job", "cancel", running, "--wait")
        self.assertIn("Step ", self.cluster.cli("job", "logs", running, "--tail", 4000).stdout)


class ManyRanksTest(E2ECase):
    """64 ranks that end at once, again and again, on one agent."""

    agents = 0
    slots = 64
    lease = "2s"

    def test_they_do_not_cost_the_agent_its_lease(self):
        program = self.cluster.program
        self.cluster.program = lambda name: pathlib.Path("/bin/true") if name == "athanor-trainer" else program(name)
        self.cluster.start_agent("agent-0")
        self.cluster.wait_workers(1)
        job = self.submit(name="many", ranks=64, restart={"budgets": {"user_code": 2}, "backoff_max": "100ms"})
        self.cluster.wait_job(job, states={"FAILED"})
        scraped = self.cluster.scrape(self.cluster.agents["agent-0"])[1]
        self.assertIn("athanor_agent_launches_total 192", scraped)
        self.assertIn("athanor_agent_lease_expiries_total 0", scraped)
        self.assertIn("athanor_agent_session_ends_total 0", scraped)


class ClosedDescriptorsTest(E2ECase):
    agents = 0

    def test_daemons_started_without_standard_descriptors_keep_their_files(self):
        self.cluster.coordinator.stop()
        processes = [self.cluster.coordinator]
        self.start_closed(self.cluster.coordinator)
        self.cluster._address = f"127.0.0.1:{self.cluster.coordinator.ports['grpc']}"
        self.cluster.start_agent("agent-0").stop()
        processes.append(self.cluster.agents["agent-0"])
        self.start_closed(self.cluster.agents["agent-0"])
        self.cluster.wait_workers(1)
        for process in processes:
            for number in (0, 1, 2):
                self.assertEqual(os.readlink(f"/proc/{process.popen.pid}/fd/{number}"), "/dev/null", (process.name, number))
        self.cluster.wait_job(self.submit(name="fine", ranks=1, steps=20))
        for path in [*self.cluster.data_dir.rglob("*"), *(self.cluster.folder / "agent-0").rglob("*")]:
            if path.is_file():
                for program in (b"INFO athanord", b"INFO athanor-agent"):
                    self.assertNotIn(program, path.read_bytes(), path)

    @staticmethod
    def start_closed(process):
        process.ports_file.unlink(missing_ok=True)
        # The shell closes what Popen would open anew.
        command = ["sh", "-c", 'exec "$@" 0<&- 1>&- 2>&-', "sh", *process.argv]
        process.popen = subprocess.Popen(command)
        process.wait_ports()


if __name__ == "__main__":
    main()
