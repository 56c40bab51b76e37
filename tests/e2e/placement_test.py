"""Where jobs go, and what they are told of it: broken workers, streams of narrow jobs, checkpoints that were not written."""

import os
import subprocess
import unittest

from e2e_case import E2ECase, job_spec, main, poll


class BrokenWorkerTest(E2ECase):
    agents = 0

    def test_a_worker_that_cannot_start_trainers_does_not_eat_the_queue(self):
        broken = self.folder / "broken-trainer"
        broken.write_text("#!/bin/sh\nexit 127\n")
        broken.chmod(0o755)
        self.cluster.start_agent("agent-good")
        self.start_another_agent("agent-bad", of="agent-good", name="agent-bad", slots=1, trainer=broken)
        self.cluster.wait_workers(2)
        jobs = [self.submit(name=f"j{i}", steps=20, interval=10, ranks=1, restart={"budgets": {}}) for i in range(6)]
        for job in jobs:
            self.assertLessEqual(self.cluster.wait_job(job).get("restartsByCause", {}).get("launch_failed", 0), 1)
        bad = self.worker("agent-bad")
        self.assertEqual(bad["state"], "QUARANTINED")
        self.assertRegex(bad["reason"], "quarantined for .*(failed here and succeeded on agent-good|launches of 3 jobs failed here in a row)")
        self.assertIn("QUARANTINED", self.cluster.cli("worker", "list").stdout)
        self.assertTrue(any(self.events_of(job, "WorkerQuarantined") for job in jobs))
        poll(lambda: 'athanor_agents{state="quarantined"} 1' in self.cluster.scrape()[1], 10, "the metric shows it")
        self.assertIn("athanor_quarantines_total 1", self.cluster.scrape()[1])
        self.cluster.cli("worker", "undrain", "agent-bad")
        self.assertEqual(self.worker("agent-bad")["state"], "READY")

    def worker(self, name):
        return next(w for w in self.cluster.cli("worker", "list", parse=True)["workers"] if w["id"] == name)

    def events_of(self, job, kind):
        return self.cluster.cli("job", "events", job, "--type", kind.lower(), parse=True).get("events", [])


class QueueTest(E2ECase):
    agents = 1

    def test_events_are_filtered_and_a_queued_job_has_no_loss_and_a_reason_of_now(self):
        first = self.submit(name="first", steps=10**7, interval=10**6)
        second, third = self.submit(name="second", steps=20), self.submit(name="third", steps=20)
        self.cluster.wait_step(first, 1)
        waiting = [line.split() for line in self.cluster.cli("job", "list", "--state", "queued").stdout.splitlines()[1:]]
        self.assertEqual([row[3] for row in waiting], ["-", "-"], "no loss")
        self.assertEqual(self.cluster.job(third)["reason"], f"waits behind {second}")
        self.cluster.cli("job", "cancel", second)
        self.assertRegex(self.cluster.job(third)["reason"], "^next: ")
        placed = self.cluster.cli("job", "events", first, "--type", "Placed", "--type", "submitted", parse=True)["events"]
        self.assertEqual([e["type"] for e in placed], ["Submitted", "Placed"])
        self.cluster.cli("job", "cancel", first)
        self.cluster.wait_job(third)


@unittest.skipUnless(os.geteuid() == 0, "mounting a small tmpfs needs root")
class LastCheckpointTest(E2ECase):
    def test_a_success_whose_last_checkpoint_was_not_written_says_so(self):
        self.cluster.stop()
        self.cluster.checkpoint_root.mkdir(parents=True, exist_ok=True)
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(self.cluster.checkpoint_root)], check=False)
        if mounted.returncode != 0:
            self.skipTest("cannot mount a tmpfs here")
        self.addCleanup(subprocess.run, ["umount", "-l", str(self.cluster.checkpoint_root)], check=False)
        self.cluster.start()
        path = self.write_job(job_spec(name="full", steps=1000))
        done = self.cluster.cli("job", "submit", path, "--watch", check=False, timeout=120)
        self.assertEqual(done.returncode, 8, done.stderr)
        job = self.cluster.cli("job", "list", parse=True)["jobs"][0]
        self.assertEqual(job["state"], "SUCCEEDED")
        self.assertRegex(job["reason"], "finished at step 1000; .*checkpoint.* could not be written: .*No space left")
        self.assertIn("No space left", job["checkpointWarning"])
        for command in (("job", "get"), ("job", "explain")):
            self.assertRegex(self.cluster.cli(*command, job["id"]).stdout, "not of 1000: a later one could not be written")
        self.assertIn("checkpoint: ", self.cluster.cli("job", "list").stdout)
        newest = max((int(c["step"]) for c in self.cluster.checkpoints(job["id"])), default=None)
        if newest is not None:
            exported = self.cluster.cli("checkpoint", "export", job["id"], "latest", self.folder / "w.safetensors", check=False)
            self.assertRegex(exported.stderr, "warning: .*not of 1000")


if __name__ == "__main__":
    main()
