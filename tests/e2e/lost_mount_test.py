"""The checkpoint storage is away for a while: nothing counts as damaged, nothing begins again, nothing is deleted."""

import os
import shutil

from e2e_case import E2ECase, main, poll


class LostMountTest(E2ECase):
    agents = 1

    def train_to(self, job, count):
        """At least `count` committed checkpoints."""
        return poll(lambda: (c := self.committed(job)) and len(c) >= count and c, 60, f"{count} checkpoints of {job}")

    def committed(self, job):
        return sorted(int(c["step"]) for c in self.cluster.checkpoints(job) if c["state"] == "COMMITTED")

    def away(self, mount_point):
        os.rename(self.cluster.checkpoint_root, self.folder / "away")
        if mount_point:
            self.cluster.checkpoint_root.mkdir()

    def back(self):
        if self.cluster.checkpoint_root.exists():
            shutil.rmtree(self.cluster.checkpoint_root)
        os.rename(self.folder / "away", self.cluster.checkpoint_root)

    def check(self, mount_point, other_job=False):
        job = self.submit(name="mount", steps=10**7, interval=50, ranks=1, runner={"checkpoint": {"interval": 50, "keep_latest_k": 0}},
                          restart={"backoff_initial": "100ms", "backoff_max": "500ms", "max_generations_without_progress": 2})
        before = self.train_to(job, 3)
        self.away(mount_point)
        if other_job:  # a new job may begin in the empty folder, which then has an id of its own
            other = self.submit(name="other", steps=20, ranks=1)
            self.cluster.wait_job(other)
        self.cluster.kill_rank(job, 0)
        failed = self.cluster.wait_event(job, "RestartDecided", count=5)
        self.assertIn("storage", failed[-1]["message"])
        got = self.cluster.job(job)
        self.assertIn(got["state"], ("BACKING_OFF", "RUNNING", "QUEUED"))
        self.assertRegex(self.cluster.explain(job), "is it mounted")
        self.assertEqual([s for s in self.committed(job) if s <= before[-1]], before, "nothing is damaged")
        self.assertFalse((self.cluster.checkpoint_root / job).exists(), "nothing was written into the empty folder")
        self.back()
        recovered = self.cluster.wait_event(job, "Recovered")
        self.assertGreater(int(recovered[-1]["message"].split()[-1]), before[-1], "it went on where it was")
        self.assertTrue(set(before) <= set(self.committed(job)))
        for step in before:
            self.assertTrue((self.cluster.checkpoint_root / job / f"step-{step:012d}" / "manifest.json").exists(), step)
        self.cluster.cli("job", "cancel", job, "--wait")

    def test_the_root_is_missing(self):
        self.check(mount_point=False)

    def test_the_root_is_an_empty_folder_where_another_job_began(self):
        self.check(mount_point=True, other_job=True)

    def test_saves_do_not_go_into_an_empty_mount_point(self):
        job = self.submit(name="writes", steps=10**7, interval=50, ranks=1)
        before = self.train_to(job, 2)
        self.away(mount_point=True)
        failed = self.cluster.wait_event(job, "CheckpointFailed")
        # Said by the storage at the start of a save, or by the job's fence when the mount went away within one.
        self.assertRegex(failed[0]["message"], r"is (it|its file system) mounted\?")
        self.assertEqual(list(self.cluster.checkpoint_root.glob("*/step-*")), [])
        self.assertRegex(self.cluster.explain(job), "warning: its newest checkpoint is of step")
        self.back()
        poll(lambda: self.committed(job)[-1] > before[-1], 60, "saves succeed again")
        self.assertEqual(int(self.cluster.job(job)["generation"]), 1, "training went on")
        self.cluster.cli("job", "cancel", job, "--wait")

    def test_all_damaged_is_the_end_and_the_folders_are_kept(self):
        job = self.submit(name="damaged", steps=10**7, interval=50, ranks=1)
        self.train_to(job, 2)
        self.cluster.cli("job", "suspend", job, "--wait")
        kept = self.committed(job)
        for step in kept:
            for shard in (self.cluster.checkpoint_root / job / f"step-{step:012d}").glob("*.safetensors"):
                os.truncate(shard, 100)
        self.cluster.cli("job", "resume", job)
        end = self.cluster.wait_job(job, states={"FAILED"})
        self.assertIn("none of its checkpoints can be read", end["reason"])
        for step in kept:
            self.assertTrue((self.cluster.checkpoint_root / job / f"step-{step:012d}" / "manifest.json").exists(), step)


if __name__ == "__main__":
    main()
