"""Damaged checkpoints and full disks."""

import os
import pathlib
import subprocess
import unittest

from e2e_case import E2ECase, SmallDisks, fill, job_spec, main, poll


class DamagedShardTest(E2ECase):
    def damage_and_resume(self, damage):
        expected = self.undisturbed_weights(steps=600, interval=50)
        job = self.submit(name="damaged", steps=600, interval=50, task=self.hold(step=255), timeouts={"hang": "60s"})
        self.cluster.wait_step(job, 250)
        self.cluster.cli("job", "suspend", job)
        self.release()
        self.cluster.wait_job(job, states={"SUSPENDED"})
        committed = sorted((int(c["step"]), c["path"]) for c in self.cluster.checkpoints(job) if c["state"] == "COMMITTED")
        (older, _), (newest, path) = committed[-2:]
        shard = sorted(pathlib.Path(path).glob("*.safetensors"))[-1]
        damage(shard)
        self.cluster.cli("job", "resume", job)
        final = self.cluster.wait_job(job)
        damaged = [e["message"] for e in self.cluster.events(job) if e["type"] == "CheckpointDamaged"]
        self.assertTrue(damaged, "the damage is an event")
        self.assertIn(shard.name, damaged[0], "the damage is reported with its file")
        self.assertIn(f"resumed_from={older}", self.cluster.cli("job", "logs", job).stdout.replace("step=", "resumed_from="))
        self.assertEqual(self.final_weights(job), expected)
        self.assertEqual(final.get("restartsByCause", {}).get("data", 0), 0, "the ranks took the older one themselves")

    def test_truncated_shard(self):
        self.damage_and_resume(lambda shard: os.truncate(shard, shard.stat().st_size // 2))

    def test_flipped_bit(self):
        def flip(shard):
            data = bytearray(shard.read_bytes())
            data[len(data) * 3 // 4] ^= 0x10
            shard.write_bytes(data)
        self.damage_and_resume(flip)


class DiskFullTest(SmallDisks, E2ECase):
    def test_full_disk_under_checkpoints_does_not_stop_training(self):
        self.cluster.stop()
        self.small(self.cluster.checkpoint_root, "16m")  # a checkpoint has 1 MB
        ballast = self.cluster.checkpoint_root / "ballast"
        self.cluster.start()
        job = self.submit(name="full", steps=10**7, interval=100)
        self.cluster.wait_step(job, 300)
        fill(ballast)
        failures = self.cluster.wait_event(job, "CheckpointFailed")
        self.assertIn("No space left", failures[0]["message"])
        step = self.cluster.step(job)
        self.cluster.wait_step(job, step + 200)
        ballast.unlink()
        newest = self.newest(job)
        poll(lambda: self.newest(job) > newest, 60, "checkpoints succeed again")
        self.assertRegex(self.cluster.scrape()[1], r"athanor_checkpoint_failures_total\S* [1-9]")
        self.assertEqual(int(self.cluster.job(job)["generation"]), 1)
        self.cluster.cli("job", "cancel", job, "--wait")

    def newest(self, job):
        return max(int(c["step"]) for c in self.cluster.checkpoints(job) if c["state"] == "COMMITTED")

    def test_full_disk_under_the_store(self):
        self.cluster.stop()
        self.small(self.cluster.data_dir, "40m")
        self.cluster.start()
        kept = self.submit(name="kept", steps=50)
        self.cluster.wait_job(kept)
        running = self.submit(name="running", steps=10**7, interval=10**6, runner={"evaluate": {"interval": 10**6}})
        self.cluster.wait_step(running, 100)
        ballast = self.cluster.data_dir / "ballast"
        fill(ballast)
        big = self.write_job(job_spec(name="big", ranks=64))
        # A call that the shortage overtook may run into its deadline; from then on each is refused at once.
        self.cluster.cli("job", "submit", big, "--timeout", "2s", check=False)
        refused = self.cluster.cli("job", "submit", big, "--timeout", "5s", check=False)
        self.assertNotEqual(refused.returncode, 0)
        self.assertRegex(refused.stderr, "(?i)space")
        self.assertEqual(self.cluster.scrape(path="/readyz")[0], 503)
        self.assertEqual(self.cluster.scrape(path="/healthz")[0], 200)
        self.assertEqual(len(self.cluster.ranks(running)), 2, "training goes on")
        self.assertEqual(self.cluster.job(kept)["state"], "SUCCEEDED", "reads are answered")
        ballast.unlink()
        poll(lambda: self.cluster.scrape(path="/readyz")[0] == 200, 30, "ready again")
        # Nothing acknowledged is lost, neither now nor after a restart from the disk.
        after = self.submit(name="after", ranks=64)
        for restart in (False, True):
            if restart:
                self.cluster.coordinator.kill()
                self.cluster.start_coordinator()
            self.assertEqual(self.cluster.job(kept)["state"], "SUCCEEDED")
            self.assertEqual(self.cluster.job(after)["state"], "QUEUED")
        self.assertEqual(int(self.cluster.job(running)["generation"]), 1)
        for job in (after, running):
            self.cluster.cli("job", "cancel", job)
        self.cluster.wait_job(running, states={"CANCELLED"})


if __name__ == "__main__":
    main()
