"""SIGKILL and SIGSTOP of agents and of the coordinator."""

import pathlib
import signal
import time

from e2e_case import E2ECase, main, poll


class KillAgentTest(E2ECase):
    agents = 3
    slots = 1
    lease = "1s"

    def test_a_killed_agent_takes_its_ranks_and_the_job_moves(self):
        expected = self.undisturbed_weights(steps=1500, interval=50)
        job = self.submit(name="moves", steps=1500, interval=50)
        self.cluster.wait_step(job, 200)
        placed = self.cluster.job(job)["generations"][-1]["placement"]
        victim = placed[1]["worker"]
        self.cluster.agents[victim].kill()
        final = self.cluster.wait_job(job)
        self.assertEqual(final["restartsByCause"].get("node_lost"), 1)
        self.assertNotIn(victim, [p["worker"] for p in final["generations"][-1]["placement"]])
        self.assertEqual(self.final_weights(job), expected)
        self.cluster.start_agent(victim)  # takes away the socket that its killed predecessor left

    def test_an_agent_that_slept_past_its_lease_is_fenced(self):
        job = self.submit(name="fenced", steps=3000, interval=50)
        self.cluster.wait_step(job, 200)
        victim = self.cluster.job(job)["generations"][-1]["placement"][0]["worker"]
        agent = self.cluster.agents[victim]
        agent.signal(signal.SIGSTOP)
        self.cluster.wait_event(job, "RestartDecided")
        poll(lambda: int(self.cluster.job(job)["generation"]) >= 2, 20, "a second generation")
        agent.signal(signal.SIGCONT)
        poll(lambda: not [r for r in self.cluster.ranks(job) if r[1] < int(self.cluster.job(job)["generation"])], 20,
             "the stale ranks are gone")
        self.cluster.wait_workers(3)
        self.cluster.wait_job(job)


class KillCoordinatorTest(E2ECase):
    lease = "10s"  # these tests are about the coordinator: a busy machine must not end a lease

    def test_training_goes_on_and_nothing_acknowledged_is_lost(self):
        job = self.submit(name="untouched", steps=12000, interval=200)
        self.cluster.wait_step(job, 100)
        acknowledged = []
        kills = 0
        while self.cluster.job(job)["state"] == "RUNNING" and kills < 6:
            queued = self.submit("--request-key", f"key-{kills}", name=f"queued{kills}", ranks=4, steps=10)
            acknowledged.append(queued)
            before = self.cluster.step(job)
            self.cluster.coordinator.kill()
            kills += 1
            began = time.monotonic()
            self.cluster.start_coordinator()
            print(f"kill {kills}: serving after {time.monotonic() - began:.3f} s")
            self.cluster.wait_step(job, before)
            self.assertEqual(self.submit("--request-key", f"key-{kills - 1}", name=f"queued{kills - 1}", ranks=4, steps=10), queued)
            for name in acknowledged:
                self.assertIn(self.cluster.job(name)["state"], ("QUEUED", "RUNNING", "SUCCEEDED"))
            # The next kill comes while the job has moved on.
            poll(lambda: self.cluster.step(job) >= before + 200 or self.cluster.job(job)["state"] != "RUNNING", 60, "progress")
        final = self.cluster.wait_job(job)
        self.assertGreaterEqual(kills, 3)
        self.assertEqual(int(final["generation"]), 1, "the job was never restarted")
        for name in acknowledged:
            self.cluster.wait_job(name)

    def test_unreachable_for_a_while(self):
        job = self.submit(name="away", steps=4000, interval=200)
        self.cluster.wait_step(job, 100)
        self.cluster.coordinator.signal(signal.SIGSTOP)
        pids = set(self.cluster.ranks(job).values())
        # Longer than a heartbeat, shorter than the agents' lease: measured by CPU time of a rank, not by the wall.
        rank = min(pids)
        used = _cpu_ticks(rank)
        poll(lambda: _cpu_ticks(rank) >= used + 50, 30, "the rank trains on")
        self.cluster.coordinator.signal(signal.SIGCONT)
        final = self.cluster.wait_job(job)
        self.assertEqual(int(final["generation"]), 1)

    def test_a_rank_killed_while_the_coordinator_is_down_is_recovered(self):
        job = self.submit(name="both", steps=3000, interval=100)
        self.cluster.wait_step(job, 300)
        self.cluster.coordinator.kill()
        self.assertIsNotNone(self.cluster.kill_rank(job, 0))
        self.cluster.start_coordinator()
        final = self.cluster.wait_job(job)
        self.assertEqual(int(final["generation"]), 2)


def _cpu_ticks(pid):
    try:
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return 1 << 40
    return int(fields[11]) + int(fields[12])


if __name__ == "__main__":
    main()
