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

    def test_axes_that_do_not_fit_end_the_job_with_the_product(self):
        job = self.submit(name="wrong", ranks=2, steps=5, runner=parallel(axes={"shard": 3}))
        final = self.cluster.wait_job(job, states={"FAILED"})
        self.assertIn("the world size 2 must be divisible by", str(final))


if __name__ == "__main__":
    main()
