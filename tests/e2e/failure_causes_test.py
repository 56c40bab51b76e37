"""Every way in which a rank can fail, the cause it is given and what follows."""

import contextlib
import os
import pathlib
import signal
import time
import unittest

from e2e_case import E2ECase, faulty_task as faulty, job_spec, main, poll


@contextlib.contextmanager
def memory_group(limit):
    """A memory cgroup (v1 or v2) of this machine; skips the test where none can be made."""
    v1 = pathlib.Path("/sys/fs/cgroup/memory")
    group = (v1 if v1.is_dir() else pathlib.Path("/sys/fs/cgroup")) / f"athanor-test-{os.getpid()}"
    try:
        group.mkdir()
        (group / ("memory.limit_in_bytes" if v1.is_dir() else "memory.max")).write_text(str(limit))
    except OSError as error:
        if group.is_dir():
            group.rmdir()
        raise unittest.SkipTest(f"no memory cgroup can be made here: {error}") from None
    try:
        yield group
    finally:
        for pid in (group / "cgroup.procs").read_text().split():
            (group.parent / "cgroup.procs").write_text(pid)
        group.rmdir()


class FailureCausesTest(E2ECase):
    def test_a_stopped_rank_is_found_as_a_hang_and_named(self):
        job = self.submit(name="hang", steps=3000, interval=50, timeouts={"hang": "1500ms"})
        self.cluster.wait_step(job, 200)
        self.assertIsNotNone(self.cluster.kill_rank(job, 1, signal.SIGSTOP))
        self.cluster.wait_event(job, "RestartDecided")
        final = self.cluster.wait_job(job)
        self.assertEqual(final["restartsByCause"].get("hang"), 1)
        self.assertEqual(int(final["lastCause"]["rank"]), 1)

    def test_the_rank_that_does_not_arrive_is_blamed_with_its_stack(self):
        job = self.submit(name="late", steps=100, interval=1000, task=faulty(hang_at_step=20, rank=1),
                          restart={"budgets": {"hang": 0}}, timeouts={"hang": "1500ms"})
        final = self.cluster.wait_job(job, states={"FAILED"})
        self.assertEqual(final["lastCause"]["kind"], "HANG")
        self.assertEqual(int(final["lastCause"]["rank"]), 1, "rank 0 waits for it")
        self.assertIn("did not come to exchange", final["lastCause"]["detail"])
        stacks = self.cluster.cli("job", "events", job, "--type", "StackDump", parse=True)["events"]
        self.assertEqual([int(e["rank"]) for e in stacks], [1], "of the rank that is late, not of the one that waits")
        self.assertRegex(stacks[0]["message"], "pause")

    def test_a_stack_that_takes_long_to_read_is_waited_for(self):
        """Longer than the coordinator takes to ask for the rank's end again: five seconds."""
        tools = self.folder / "tools"
        tools.mkdir()
        os.mkfifo(tools / "gate")
        (tools / "eu-stack").write_text(f"#!/bin/sh\necho $$ > {tools}/begun\nread line < {tools}/gate\n"
                                        "echo 'TID 1: #0 a frame of a very large program'\n")
        (tools / "eu-stack").chmod(0o755)
        for agent in self.cluster.agents.values():
            agent.stop()
            agent.env = {"PATH": f"{tools}:{os.environ['PATH']}"}
            agent.start()
        self.cluster.wait_workers(2)
        job = self.submit(name="slow", steps=100, interval=1000, task=faulty(hang_at_step=20, rank=1),
                          restart={"budgets": {"hang": 0}}, timeouts={"hang": "1500ms"})
        poll((tools / "begun").exists, 60, "the tool reads the stack", interval=0.01)
        began = time.monotonic()
        poll(lambda: time.monotonic() - began > 5.5, 20, "the second request")
        with open(tools / "gate", "w") as gate:
            gate.write("\n")
        self.cluster.wait_job(job, states={"FAILED"})
        stacks = self.cluster.cli("job", "events", job, "--type", "StackDump", parse=True)["events"]
        self.assertEqual([e["message"].strip() for e in stacks], ["TID 1: #0 a frame of a very large program"])

    def test_user_code_that_throws_uses_its_budget_and_ends(self):
        job = self.submit(name="throws", steps=100, task=faulty(throw_at_step=20, rank=1), restart={"budgets": {"user_code": 1}})
        final = self.cluster.wait_job(job, states={"FAILED"})
        self.assertEqual(final["lastCause"]["kind"], "USER_CODE")
        self.assertEqual(final["restartsByCause"].get("user_code"), 1)
        explained = self.cluster.explain(job)
        self.assertIn("rank 1", explained)
        self.assertIn("as asked by throw_at_step", explained)

    def test_out_of_memory(self):
        job = self.submit(name="oom", steps=100, task=faulty(oom_at_step=10, rank=0), restart={"budgets": {"out_of_memory": 0}})
        final = self.cluster.wait_job(job, states={"FAILED"})
        self.assertEqual(final["lastCause"]["kind"], "OUT_OF_MEMORY")

    def test_a_memory_limit_of_the_kernel_is_told_from_a_plain_sigkill(self):
        with memory_group(limit=2 << 30) as group:
            for agent in self.cluster.agents.values():
                (group / "cgroup.procs").write_text(str(agent.popen.pid))
            job = self.submit(name="eater", steps=100, task=faulty(eat_at_step=10, rank=0), restart={"budgets": {"out_of_memory": 0}})
            final = self.cluster.wait_job(job, states={"FAILED"})
            self.assertEqual(final["lastCause"]["kind"], "OUT_OF_MEMORY", final["lastCause"])
            self.assertEqual(int(final["lastCause"].get("rank", 0)), 0)
            self.assertIn("killed by the kernel", self.cluster.explain(job))
            self.cluster.wait_workers(2)  # the agents live

    def test_nan_loss_ends_at_once_by_default(self):
        job = self.submit(name="nan", steps=200, task=faulty(nan_from_step=20), runner={"max_nonfinite_losses": 5})
        final = self.cluster.wait_job(job, states={"FAILED"})
        self.assertEqual(final["lastCause"]["kind"], "NAN_LOSS")

    def test_an_exit_code_that_forbids_a_restart(self):
        job = self.submit(name="never", steps=100, task=faulty(exit_code=20, exit_code_at_step=10, rank=0))
        final = self.cluster.wait_job(job, states={"FAILED"})
        self.assertEqual(int(final["generation"]), 1)
        self.assertFalse(final["lastCause"].get("retryable", False))

    def test_a_last_evaluation_that_ends_the_process_costs_no_training(self):
        job = self.submit(name="lasteval", steps=60, interval=1000, task=faulty(exit_in_evaluation_after=60, exit_code=3, rank=1))
        final = self.cluster.wait_job(job)
        self.assertEqual(int(final["generation"]), 2)
        self.assertEqual(sum(int(n) for n in final["restartsByCause"].values()), 1)
        placed = [event["message"] for event in self.cluster.events(job) if event["type"] == "Placed"]
        self.assertIn("starts from step-000000000060", placed[1], "the second generation trained nothing")
        newest = max(self.cluster.checkpoints(job), key=lambda c: int(c["step"]))
        self.assertEqual(int(newest["step"]), 60)
        self.assertIn("test.accuracy", newest["metrics"])
        self.assertIn("latest", newest["aliases"])
        self.assertIn("CheckpointMeasured", [event["type"] for event in self.cluster.events(job)])

    def test_a_long_evaluation_is_no_hang_and_a_kill_in_it_costs_no_training(self):
        """Each batch waits for a word; all together take three times the limit of a hang, one of them a part of it."""
        hang, pause = 2.0, 0.8
        self._fifo = self.folder / "hold"
        os.mkfifo(self._fifo)
        job = self.submit(name="longeval", steps=60, interval=20, timeouts={"hang": f"{hang}s"},
                          runner={"evaluate": {"interval": 20}, "dataloader": {"batch_size": 32, "test": {"batch_size": 8}}},
                          task=faulty(hold_in_evaluation_after=20, hold_fifo=str(self._fifo), rank=0, once_file=str(self.folder / "held")))
        self.cluster.wait_event(job, "CheckpointCommitted")  # of step 20: before its evaluation
        began = time.monotonic()
        while time.monotonic() - began < 3 * hang:
            released = time.monotonic()
            self.release()
            poll(lambda: time.monotonic() - released > pause, 60, "the batch has taken its time")
        running = self.cluster.job(job)
        self.assertEqual((running["state"], int(running["generation"])), ("RUNNING", 1), running.get("reason"))
        self.assertEqual(running["progress"]["ranks"][0]["phase"], "evaluating")
        self.assertIsNotNone(self.cluster.kill_rank(job, 0))
        final = self.cluster.wait_job(job)
        self.assertEqual(dict(final["restartsByCause"]), {"signal": 1})
        resumed = [event["message"] for event in self.cluster.events(job) if event["type"] == "Resumed"]
        self.assertIn("resumed from step 20 of", resumed[0])

    def test_a_crash_loop_is_stopped(self):
        job = self.submit(name="loop", steps=100, interval=1000, task=faulty(throw_at_step=5, rank=0),
                          restart={"budgets": {"user_code": -1}, "max_generations_without_progress": 3})
        final = self.cluster.wait_job(job, states={"FAILED"})
        self.assertIn("progress", final["reason"])
        self.assertLessEqual(int(final["generation"]), 4)

    def test_the_same_failure_text_is_in_logs_and_submit_watch_returns_it(self):
        path = self.write_job({**job_spec(name="watched", steps=50, task=faulty(throw_at_step=5, rank=0),
                                                                 restart={"budgets": {"user_code": 0}})})
        done = self.cluster.cli("job", "submit", path, "--watch", check=False, timeout=90)
        self.assertEqual(done.returncode, 6, done.stderr)
        job = self.cluster.cli("job", "list", parse=True)["jobs"][0]["id"]
        self.assertIn("as asked by throw_at_step", self.cluster.cli("job", "logs", job).stdout)


if __name__ == "__main__":
    main()
