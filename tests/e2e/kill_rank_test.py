"""SIGKILL of ranks: at 20 random points of one run, during the rendezvous, and at each point of a save."""

import random
import unittest

from e2e_case import E2ECase, main, poll

SAVE_POINTS = ["checkpoint.after_stage", "checkpoint.before_shard_write", "checkpoint.before_shard_rename", "checkpoint.after_shard_rename",
               "checkpoint.before_manifest_rename", "checkpoint.after_manifest_rename"]


class KillRankTest(E2ECase):
    def test_twenty_random_kills_end_with_the_same_weights(self):
        steps = 6000
        expected = self.undisturbed_weights(steps=steps, interval=100)
        seed = random.randrange(1 << 30)
        print("seed", seed)
        rng = random.Random(seed)
        job = self.submit(name="killed", steps=steps, interval=100)
        kills = 0
        for point in sorted(rng.sample(range(50, steps - 200), 20)):
            def reached():
                found = self.cluster.job(job)
                return found["state"] == "SUCCEEDED" or int(found.get("progress", {}).get("step", 0)) >= point
            poll(reached, 60, f"step {point}", interval=0.01)
            if self.cluster.kill_rank(job, rng.randrange(2)):
                kills += 1
                poll(lambda: not self.stale_rank_runs(job), 20, "the old generation's ranks are gone")
        final = self.cluster.wait_job(job, timeout=120)
        self.assertGreaterEqual(kills, 15)
        self.assertGreaterEqual(sum(final["restartsByCause"].values()), 10)
        self.assertEqual(self.final_weights(job), expected)

    def stale_rank_runs(self, job):
        current = int(self.cluster.job(job)["generation"])
        return [r for r in self.cluster.ranks(job) if r[1] < current]

    def test_kill_during_rendezvous(self):
        for point in ("trainer.before_join", "trainer.after_join"):
            with self.subTest(point):
                job = self.submit(name="rendezvous", steps=60, env={"ATHANOR_FAILPOINT": f"{point}=kill", "ATHANOR_FAILPOINT_RANK": "1",
                                                                   "ATHANOR_FAILPOINT_GENERATION": "1"})
                final = self.cluster.wait_job(job)
                self.assertEqual(int(final["generation"]), 2)
                self.assertEqual(final["restartsByCause"].get("signal"), 1)

    def test_kill_at_each_point_of_a_save(self):
        expected = self.undisturbed_weights(steps=120, interval=30)
        for index, point in enumerate(SAVE_POINTS):
            with self.subTest(point):
                rank = "0" if "manifest" in point else str(index % 2)
                job = self.submit(name=f"save{index}", steps=120, interval=30,
                                  env={"ATHANOR_FAILPOINT": f"{point}=kill@2", "ATHANOR_FAILPOINT_RANK": rank,
                                       "ATHANOR_FAILPOINT_GENERATION": "1"})
                final = self.cluster.wait_job(job)
                self.assertEqual(int(final["generation"]), 2, "the failpoint fired once")
                self.assertEqual(self.final_weights(job), expected)
                self.assertEqual({c["state"] for c in self.cluster.checkpoints(job)}, {"COMMITTED"})


if __name__ == "__main__":
    main()
