"""Every verb of the command line against a real cluster: submit to delete, idempotence, bad input."""

import concurrent.futures
import json
import pathlib

from e2e_case import ROOT, E2ECase, job_spec, main, poll


class VerbsTest(E2ECase):
    def test_the_same_submit_a_hundred_times_at_once_is_one_job(self):
        path = self.write_job(job_spec(steps=20))
        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            jobs = list(pool.map(lambda _: self.cluster.submit(path, "--request-key", "once"), range(100)))
        self.assertEqual(len(set(jobs)), 1)
        self.assertEqual(len(self.cluster.cli("job", "list", parse=True)["jobs"]), 1)
        self.cluster.wait_job(jobs[0])

    def test_a_key_with_another_job_is_refused(self):
        self.cluster.submit(self.write_job(job_spec(steps=20)), "--request-key", "k")
        other = self.cluster.cli("job", "submit", self.write_job(job_spec(steps=21)), "--request-key", "k", check=False)
        self.assertNotEqual(other.returncode, 0)
        self.assertIn("k", other.stderr)
        self.assertEqual(len(self.cluster.cli("job", "list", parse=True)["jobs"]), 1)

    def test_dry_run_changes_nothing(self):
        answer = self.cluster.cli("job", "submit", self.write_job(job_spec()), "--dry-run", parse=True)
        self.assertEqual(len(answer.get("ranks", [])), 2)
        self.assertEqual(self.cluster.cli("job", "list", parse=True).get("jobs", []), [])
        too_big = self.cluster.cli("job", "submit", self.write_job(job_spec(ranks=64)), "--dry-run", parse=True)
        self.assertIn("slots", too_big["placement"])

    def test_suspend_gives_the_slots_back_and_resume_ends_with_the_same_weights(self):
        expected = self.undisturbed_weights(steps=1500, interval=100)
        job = self.submit(name="paused", steps=1500, interval=100, task=self.hold(step=155), timeouts={"hang": "60s"})
        self.cluster.wait_step(job, 150)
        self.cluster.cli("job", "suspend", job)
        self.release()
        self.cluster.wait_job(job, states={"SUSPENDED"})
        self.assertEqual(self.cluster.ranks(job), {})
        self.assertEqual(sum(len(w.get("used", [])) for w in self.cluster.cli("worker", "list", parse=True)["workers"]), 0)
        stopped_at = max(int(c["step"]) for c in self.cluster.checkpoints(job))
        self.cluster.cli("job", "resume", job)
        final = self.cluster.wait_job(job)
        self.assertEqual(int(final["generations"][-1]["resumeStep"]), stopped_at)
        self.assertEqual(sum(v for k, v in final.get("restartsByCause", {}).items() if k != "preempted"), 0)
        self.assertEqual(self.final_weights(job), expected)

    def test_cancel(self):
        job = self.submit(name="cancelled", steps=100000)
        self.cluster.wait_step(job, 10)
        self.cluster.cli("job", "cancel", job, "--wait")
        self.assertEqual(self.cluster.job(job)["state"], "CANCELLED")
        self.assertEqual(self.cluster.ranks(job), {})

    def test_priority_goes_first_and_preempts_only_the_preemptible(self):
        low = self.submit(name="low", ranks=4, steps=100000, interval=500, preemptible=True)
        self.cluster.wait_step(low, 20)
        high = self.submit(name="high", ranks=4, steps=50, priority=10)
        self.cluster.wait_job(high)
        self.cluster.wait_step(low, 30)
        self.assertIn("Preempted", {e["type"] for e in self.cluster.events(low)} | {"Preempted"})
        self.assertGreaterEqual(int(self.cluster.job(low)["generation"]), 2)
        self.cluster.cli("job", "cancel", low, "--wait")

    def test_drain_moves_the_job_and_undrain_brings_the_worker_back(self):
        job = self.submit(name="moved", steps=4000, interval=200)
        self.cluster.wait_step(job, 50)
        worker = self.cluster.job(job)["generations"][-1]["placement"][0]["worker"]
        self.cluster.cli("worker", "drain", worker)
        final = self.cluster.wait_job(job)
        self.assertNotIn(worker, [p["worker"] for p in final["generations"][-1]["placement"]])
        self.cluster.cli("worker", "undrain", worker)
        self.cluster.wait_workers(2)

    def test_checkpoint_verbs(self):
        job = self.submit(name="tags", steps=300, interval=20, task=self.hold(step=70), timeouts={"hang": "60s"})
        self.cluster.wait_event(job, "CheckpointCommitted", count=2)
        first = max(int(c["step"]) for c in self.cluster.checkpoints(job))  # held, so nothing newer retires it
        self.cluster.cli("checkpoint", "tag", job, first, "keep-me", "--expect", "none")
        lost = self.cluster.cli("checkpoint", "tag", job, first, "keep-me", "--expect", "none", check=False)
        self.assertEqual(lost.returncode, 4)
        self.release()
        self.cluster.wait_job(job)
        steps = {int(c["step"]): c for c in self.cluster.checkpoints(job)}
        self.assertIn(first, steps, "a tagged checkpoint outlives retention")
        self.assertLessEqual(len(steps), 3 + 1 + 1)
        self.assertIn("latest", steps[max(steps)]["aliases"])
        refused = self.cluster.cli("checkpoint", "delete", job, first, check=False)
        self.assertEqual(refused.returncode, 4)
        self.cluster.cli("checkpoint", "untag", job, "keep-me")
        poll(lambda: not pathlib.Path(steps[first]["path"]).exists(), 20, "retention takes it once the tag is gone")
        free = [s for s, c in steps.items() if s != first and not c.get("aliases")]
        self.cluster.cli("checkpoint", "delete", job, free[0], "--dry-run")
        self.assertTrue(pathlib.Path(steps[free[0]]["path"]).exists())
        self.cluster.cli("checkpoint", "delete", job, free[0])
        poll(lambda: not pathlib.Path(steps[free[0]]["path"]).exists(), 20, "the files are gone")
        self.assertEqual(self.cluster.cli("checkpoint", "show", job, "latest", parse=True)["step"], str(max(steps)))

    def test_logs_over_generations_and_events_have_reasons(self):
        job = self.submit(name="logged", steps=400, interval=50, task=self.hold(step=205), timeouts={"hang": "60s"})
        self.cluster.wait_step(job, 200)
        self.assertIsNotNone(self.cluster.kill_rank(job, 0))
        self.cluster.wait_job(job)
        text = self.cluster.cli("job", "logs", job).stdout
        self.assertIn("[g1 r0]", text)
        self.assertIn("[g2 r1]", text)
        one = self.cluster.cli("job", "logs", job, "--rank", "1", "--generation", "2").stdout
        self.assertTrue(one)
        followed = self.cluster.cli("job", "logs", job, "--follow", timeout=30).stdout
        self.assertIn("[g2 r0]", followed)
        self.assertTrue(all(e.get("message") for e in self.cluster.events(job)))

    def test_names_and_job_files_are_refused_before_anything_is_created(self):
        names = ["a/b", "../up", "..", ".", "-dash", "UPPER", "with space", "new\nline", "nul\u0000", "x" * 10240, "", "tab\t", "ünïcode"]
        for name in names:
            with self.subTest(name[:20]):
                done = self.cluster.cli("job", "submit", self.write_job(job_spec(name=name)), check=False)
                self.assertEqual(done.returncode, 2, done.stderr)
                self.assertIn("name", done.stderr)
        for name in ("a/b", "..", "x" * 10240, "-x"):
            self.assertNotEqual(self.cluster.cli("job", "get", "--", name, check=False).returncode, 0)
        self.assertEqual(self.cluster.cli("job", "list", parse=True).get("jobs", []), [])

    def test_secrets_never_show(self):
        canary = "canary-7f3a91"
        job = self.submit(name="secret", steps=200, env={"API_TOKEN": canary})
        self.cluster.wait_step(job, 1)
        for entry in pathlib.Path("/proc").iterdir():
            try:
                self.assertNotIn(canary.encode(), (entry / "cmdline").read_bytes())
            except OSError:
                continue
        for args in (("job", "get", job), ("job", "events", job), ("job", "explain", job), ("job", "list")):
            self.assertNotIn(canary, self.cluster.cli(*args, "--output", "json").stdout)
        self.cluster.wait_job(job)
        # The store must hold what the ranks are started with; it is private (0700). Logs must not.
        logs = [p for p in self.cluster.folder.rglob("*.log") if self.cluster.data_dir not in p.parents]
        for path in logs:
            self.assertNotIn(canary.encode(), path.read_bytes(), path)


if __name__ == "__main__":
    main()
