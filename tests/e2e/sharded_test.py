"""Models divided over the ranks, by job files as a user writes them."""

from e2e_case import ROOT, E2ECase, main

TEXT = ROOT / "examples/data/text/pride_and_prejudice.txt"
STEPS = 40


def parallel(shard="parameters", axes=None, **fsdp):
    return {"stack": "parallel", "parallel": {"axes": axes or {"shard": -1}}, "fsdp": {"shard": shard, "units": ["blocks.*"], **fsdp}}


class ShardedTest(E2ECase):
    def train(self, name, ranks=2, steps=STEPS, **runner):
        options = {"data": str(TEXT), "n_layer": 2, "n_head": 2, "n_embd": 32, "block_size": 32, "stride": 500}
        job = self.submit(name=name, ranks=ranks, steps=steps, interval=20, task={"name": "char_gpt", "options": options},
                          timeouts={"hang": "60s"},
                          runner={"optim": {"type": "adamw", "lr": 0.01}, "max_grad_norm": 1.0, "evaluate": {"interval": 20},
                                  "ema": {"enabled": True}, "dataloader": {"batch_size": 16 // ranks, "shuffle": False}, **runner})
        return job, self.cluster.wait_job(job)["progress"]["metrics"]

    def test_all_levels_come_to_the_same_loss(self):
        _, expected = self.train("replicas")
        for shard in ("parameters", "gradients", "optimizer"):
            _, found = self.train(shard, **parallel(shard))
            self.assertAlmostEqual(found["val.loss"], expected["val.loss"], places=4, msg=shard)
        _, hybrid = self.train("hybrid", ranks=4, **parallel(axes={"shard": 2, "replicate": 2}))
        self.assertAlmostEqual(hybrid["val.loss"], expected["val.loss"], places=3)

    def test_a_checkpoint_goes_on_with_another_mesh(self):
        batches = {"dataloader": {"batch_size": 8, "shuffle": False}}  # of a rank: a resume keeps them
        job, first = self.train("divided", **batches, **parallel())
        path = self.cluster.checkpoints(job)[0]["path"]
        for name, ranks, mesh in (("whole", 1, {}), ("four", 4, parallel(axes={"shard": 4}))):
            _, then = self.train(name, ranks=ranks, resume=path, steps=STEPS + 20, **batches, **mesh)
            self.assertLess(then["val.loss"], first["val.loss"], name)

    def test_a_suspended_job_goes_on_with_another_mesh(self):
        options = {"data": str(TEXT), "n_layer": 2, "n_head": 2, "n_embd": 32, "block_size": 32, "stride": 500}
        runner = {"optim": {"type": "adamw", "lr": 0.01}, "dataloader": {"batch_size": 4, "shuffle": False}, **parallel(axes={"shard": 2})}
        job = self.submit(name="grows", ranks=2, steps=100000, interval=100000, task={"name": "char_gpt", "options": options},
                          timeouts={"hang": "60s"}, runner=runner)
        self.cluster.wait_step(job, 20)
        self.cluster.cli("job", "suspend", job)
        self.cluster.wait_job(job, states={"SUSPENDED"})
        stopped_at = max(int(c["step"]) for c in self.cluster.checkpoints(job))
        refused = self.cluster.cli("job", "resume", job, "--set", "optim.lr=0.5", check=False)
        self.assertEqual(refused.returncode, 2, refused)
        self.assertIn("optim.lr: saved 0.01, now 0.5", refused.stderr)
        self.assertEqual(self.cluster.job(job)["state"], "SUSPENDED")
        self.cluster.cli("job", "resume", job, "--set", "parallel.axes.shard=4", "--set", f"steps={stopped_at + 20}")
        final = self.cluster.wait_job(job)
        self.assertEqual(int(final["generations"][-1]["resumeStep"]), stopped_at)
        self.assertEqual(len(final["generations"][-1]["placement"]), 4)
        self.assertEqual(int(final["progress"]["step"]), stopped_at + 20)
        told = [e["message"] for e in self.cluster.events(job) if e["type"] == "ResumeRequested"]
        self.assertEqual(told, [f"by request; changed: parallel.axes.shard=4, steps={stopped_at + 20}"])

    def test_axes_that_do_not_fit_end_the_job_with_the_product(self):
        job = self.submit(name="wrong", ranks=2, steps=5, runner=parallel(axes={"shard": 3}))
        final = self.cluster.wait_job(job, states={"FAILED"})
        self.assertIn("the world size 2 must be divisible by", str(final))


if __name__ == "__main__":
    main()
