"""What ranks print and leave behind: their logs, their crashes, the processes that they started."""

import json
import os
import pathlib
import select
import signal
import subprocess

from e2e_case import E2ECase, faulty_task as faulty, job_spec, main, poll


def lives(pid):
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


class RanksTest(E2ECase):
    agents = 1

    def follow(self, job, wanted, timeout=30):
        """What `job logs --follow` shows until `wanted` is in it."""
        with subprocess.Popen([self.cluster.program("athanor"), "--server", self.cluster.address, "job", "logs", job, "--follow"],
                              stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as reader:
            shown = b""

            def seen():
                nonlocal shown
                if select.select([reader.stdout], [], [], 0.05)[0]:
                    shown += os.read(reader.stdout.fileno(), 1 << 16)
                return wanted in shown
            try:
                poll(seen, timeout, f"{wanted} in the log", interval=0)
            finally:
                reader.kill()
        return shown

    def orphan(self):
        path = self.folder / "orphan"
        poll(path.exists, 60, "the orphan", interval=0.02)
        return int(path.read_text())

    def test_a_process_with_its_own_session_ends_with_its_rank(self):
        job = self.submit(name="leaves", ranks=1, steps=100000, task=faulty(orphan_file=str(self.folder / "orphan")))
        orphan = self.orphan()
        self.assertTrue(lives(orphan))
        self.cluster.cli("job", "cancel", job, "--wait")
        self.assertFalse(lives(orphan))

    def test_an_agent_that_starts_again_ends_what_it_left_when_it_was_killed(self):
        job = self.submit(name="leaves", ranks=1, steps=100000, task=faulty(orphan_file=str(self.folder / "orphan")))
        orphan = self.orphan()
        self.cluster.cli("job", "cancel", job)
        self.cluster.agents["agent-0"].kill()
        self.cluster.start_agent("agent-0")
        poll(lambda: not lives(orphan), 20, "the orphan's end")

    def test_what_a_killed_rank_has_printed_is_in_its_log(self):
        job = self.submit(name="says", ranks=1, steps=100000, task=faulty(say="größe 日本"), restart={"budgets": {"signal": 0}})
        self.cluster.wait_step(job, 40)
        self.cluster.kill_rank(job, 0)
        self.cluster.wait_job(job, states={"FAILED"})
        self.assertGreaterEqual(self.cluster.cli("job", "logs", job).stdout.count("größe 日本\n"), 40)
        self.assertIn("größe 日本", self.cluster.job(job)["lastCause"]["logTail"])

    def test_a_progress_bar_of_carriage_returns_is_shown_as_it_goes(self):
        job = self.submit(name="bar", ranks=1, steps=100000, task=faulty(bar=1))
        self.assertIn(b"[g1 r0] bar ", self.follow(job, b"bar "))
        self.cluster.cli("job", "cancel", job, "--wait")

    def test_a_crash_leaves_its_stack(self):
        job = self.submit(name="crash", ranks=1, steps=100, task=faulty(crash_at_step=5), restart={"budgets": {"signal": 0}})
        cause = self.cluster.wait_job(job, states={"FAILED"})["lastCause"]
        self.assertEqual((cause["kind"], int(cause["signal"])), ("SIGNAL", signal.SIGSEGV))
        self.assertIn("SIGSEGV at address 0x10", cause["detail"])
        self.assertIn("FaultyTask::Crash", self.cluster.explain(job))
        log = self.cluster.cli("job", "logs", job).stdout
        for place in ("FaultyTask::Forward", "athanor::TorchRunner", "main"):
            self.assertIn(place, log)

    def test_logs_as_json(self):
        job = self.submit(name="json", ranks=2, steps=40, log_format="json")
        self.cluster.wait_job(job)
        lines = [json.loads(line) for line in self.cluster.cli("job", "logs", job, "--rank", 1, "--generation", 1).stdout.splitlines()]
        self.assertTrue(lines)
        for line in lines:
            self.assertEqual((line["job"], line["generation"], line["rank"]), (job, 1, 1))
            self.assertIn("time", line)
        steps = [line for line in lines if line["event"] == "Step"]
        self.assertTrue(steps)
        self.assertIsInstance(steps[-1]["step"], int)
        self.assertIsInstance(steps[-1]["loss"], float)
        refused = self.cluster.cli("job", "submit", self.write_job(job_spec(log_format="xml")), check=False)
        self.assertIn("log_format: found \"xml\"", refused.stderr)


if __name__ == "__main__":
    main()
