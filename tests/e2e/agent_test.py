"""Daemons as processes: crowds at their doors, closed descriptors."""

import contextlib
import os
import pathlib
import socket
import subprocess

from e2e_case import E2ECase, main, poll


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
