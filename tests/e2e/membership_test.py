"""Who belongs to the cluster: a coordinator that is away, second agents of a name, restored stores, agents that wake late."""

import json
import shutil
import signal
import time

from e2e_case import E2ECase, main, poll


def expiries(cluster, agent):
    text = cluster.scrape(cluster.agents[agent])[1]
    return sum(float(line.split()[1]) for line in text.splitlines() if line.startswith("athanor_agent_lease_expiries"))


class AwayTest(E2ECase):
    agents = 1
    lease = "2s"

    def test_ranks_outlive_ten_leases_and_hand_over_what_happened(self):
        job = self.submit(name="away", steps=1500, interval=500, task=self.hold(300), timeouts={"hang": "60s"})
        self.cluster.wait_step(job, 200)
        ranks = self.cluster.ranks(job)
        self.cluster.coordinator.kill()
        began = time.monotonic()
        poll(lambda: expiries(self.cluster, "agent-0") >= 1, 30, "the agent's lease ends")
        poll(lambda: time.monotonic() - began > 20, 40, "ten leases")
        self.assertEqual(self.cluster.ranks(job), ranks, "the ranks go on")
        self.release()
        last = self.cluster.checkpoint_root / job / "step-000000001500"
        poll(last.exists, 60, "training ends without the coordinator")
        self.cluster.start_coordinator()
        final = self.cluster.wait_job(job)
        self.assertEqual(int(final["generation"]), 1)
        self.assertEqual(max(int(c["step"]) for c in self.cluster.checkpoints(job)), 1500)

    def test_strict_fencing_ends_ranks_with_the_lease(self):
        job = self.submit(name="strict", steps=200000, interval=100, fencing="strict")
        self.cluster.wait_event(job, "CheckpointCommitted")
        self.cluster.coordinator.kill()
        poll(lambda: not self.cluster.ranks(job), 30, "the ranks end with the lease")
        self.cluster.start_coordinator()
        poll(lambda: int(self.cluster.job(job)["generation"]) >= 2, 30, "a second generation")
        self.assertIn("node_lost", self.cluster.job(job)["restartsByCause"])
        self.cluster.cli("job", "cancel", job)
        self.cluster.wait_job(job, states={"CANCELLED"})


class NamesTest(E2ECase):
    agents = 1
    lease = "60s"  # whatever is taken over at once is not taken over by a lease's end

    def test_a_second_agent_of_a_name_is_refused_and_a_restart_is_not(self):
        second = self.start_another_agent("second")
        poll(lambda: "the name 'agent-0' belongs to an agent on" in second.tail(), 20, "the second one is refused")
        job = self.submit(name="during", steps=50, ranks=2)
        final = self.cluster.wait_job(job)
        self.assertEqual(int(final["generation"]), 1)
        self.cluster.cli("job", "logs", job)
        second.stop()
        held = self.submit(name="held", steps=100000, ranks=2)
        self.cluster.wait_step(held, 10)
        self.cluster.agents["agent-0"].kill()
        began = time.monotonic()
        self.cluster.start_agent("agent-0")
        poll(lambda: int(self.cluster.job(held)["generation"]) >= 2, 30, "the restarted agent is taken")
        self.assertLess(time.monotonic() - began, 30)
        self.cluster.cli("job", "cancel", held)
        self.cluster.wait_job(held, states={"CANCELLED"})


class RestoredTest(E2ECase):
    agents = 1
    lease = "2s"

    def test_an_older_store_neither_keeps_jobs_for_ever_nor_uses_numbers_twice(self):
        job = self.submit(name="old", steps=200000, interval=200)
        self.cluster.wait_event(job, "CheckpointCommitted")
        data, copy = self.cluster.data_dir, self.folder / "copy"
        self.cluster.coordinator.kill()
        shutil.copytree(data, copy)
        self.cluster.start_coordinator()
        for generation in (2, 3):
            poll(lambda: self.cluster.kill_rank(job, 0), 30, "a rank to kill")
            poll(lambda g=generation: int(self.cluster.job(job)["generation"]) >= g, 30, f"generation {generation}")
            poll(lambda g=generation: [r for r in self.cluster.ranks(job) if r[1] == g], 30, f"ranks of generation {generation}")
        later = self.submit(name="later", steps=200000, ranks=2)  # the copy does not know it
        self.cluster.coordinator.kill()
        shutil.rmtree(data)
        shutil.copytree(copy, data)
        self.cluster.start_coordinator()
        poll(lambda: int(self.cluster.job(job)["generation"]) >= 4, 30, "a number that was not used before")
        self.cluster.wait_step(job, 1)
        self.assertEqual({r[1] for r in self.cluster.ranks(job)}, {int(self.cluster.job(job)["generation"])})
        self.assertFalse(self.cluster.ranks(later), "a job that no record knows does not run")
        self.cluster.cli("job", "cancel", job)
        self.cluster.wait_job(job, states={"CANCELLED"}, timeout=30)
        self.cluster.wait_job(self.submit(name="next", steps=20, ranks=2))


class LateWriterTest(E2ECase):
    agents = 2
    slots = 1
    lease = "1s"

    def test_a_rank_that_was_replaced_writes_no_more(self):
        job = self.submit(name="late", steps=200000, interval=100, ranks=1, runner={"jsonl": True})
        self.cluster.wait_event(job, "CheckpointCommitted")
        agent = self.cluster.agents[self.cluster.job(job)["generations"][-1]["placement"][0]["worker"]]
        agent.signal(signal.SIGSTOP)
        try:
            old = self.cluster.ranks(job)
            poll(lambda: [r for r in self.cluster.ranks(job) if r[1] == 2], 30, "a second generation")
            # Its agent sleeps and cannot end it: it ends at its first write.
            poll(lambda: not set(old) & set(self.cluster.ranks(job)), 12, "the old rank is fenced")
        finally:
            agent.signal(signal.SIGCONT)
        self.cluster.wait_workers(2)
        self.cluster.cli("job", "cancel", job)
        self.cluster.wait_job(job, states={"CANCELLED"})
        rows = (self.cluster.checkpoint_root / job / "metrics.jsonl").read_text().splitlines()
        steps = [json.loads(row)["step"] for row in rows]
        backwards = [pair for pair in zip(steps, steps[1:]) if pair[1] < pair[0]]
        self.assertLessEqual(len(backwards), 1, "only the restart goes back")


if __name__ == "__main__":
    main()
