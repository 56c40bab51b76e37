"""Commands that follow end when they should: at Ctrl-C whatever the coordinator does, and when nobody reads their output any more.
Output that cannot be written is an error of every command."""

import json
import os
import signal
import subprocess
import time

from e2e_case import BUILD, E2ECase, job_spec, main

CLI = str(BUILD / "client/athanor")


class FollowingTest(E2ECase):
    agents = 1
    slots = 2

    def start(self, *args, **pipes):
        return subprocess.Popen([CLI, "--server", self.cluster.address, *map(str, args)], stdin=subprocess.DEVNULL, text=True, **pipes)

    def first_line(self, process, stream):
        line = stream.readline()
        if not line:
            process.kill()
            self.fail(f"{process.args} said nothing; {process.communicate()[1]}")
        return line

    def interrupted(self, process):
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=20)
        self.assertEqual(process.returncode, 130, said)
        self.assertLess(time.monotonic() - began, 1.5, process.args)
        return said

    def test_ctrl_c_ends_every_following_command_within_a_second(self):
        queued = self.submit(name="queued", ranks=8)
        path = self.write_job(job_spec(name="second", ranks=8))
        watch = self.start("job", "watch", queued, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        self.first_line(watch, watch.stderr)
        self.assertIn("detached", self.interrupted(watch))
        submit = self.start("job", "submit", path, "--watch", stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        self.first_line(submit, submit.stderr)
        self.interrupted(submit)
        events = self.start("job", "events", queued, "--follow", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.first_line(events, events.stdout)
        self.interrupted(events)
        running = self.submit(name="running", steps=400, task=self.hold(step=205), timeouts={"hang": "60s"})
        self.cluster.wait_step(running, 200)
        logs = self.start("job", "logs", running, "--follow", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.first_line(logs, logs.stdout)
        self.interrupted(logs)
        wait = self.start("job", "suspend", running, "--wait", stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        self.cluster.wait_event(running, "SuspendRequested")
        said = self.interrupted(wait)
        self.assertIn("stands", said)
        self.release()

        # Nobody answers any more: the coordinator stands still, then it is gone.
        for silence in (lambda: self.cluster.coordinator.signal(signal.SIGSTOP), self.cluster.coordinator.kill):
            watch = self.start("job", "watch", queued, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
            self.first_line(watch, watch.stderr)
            silence()
            self.interrupted(watch)
            if self.cluster.coordinator.popen.poll() is None:
                self.cluster.coordinator.signal(signal.SIGCONT)
        self.cluster.start_coordinator()

    def test_they_end_when_their_reader_has_gone(self):
        job = self.submit(name="running", steps=400, task=self.hold(step=205), timeouts={"hang": "60s"})
        self.cluster.wait_step(job, 200)
        for args in (("job", "logs", job, "--follow"), ("job", "events", job, "--follow"), ("job", "watch", job)):
            with self.subTest(args[1]):
                # No event and no line comes after this: only the reader's absence can end it.
                process = self.start(*args, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
                self.first_line(process, process.stdout)
                process.stdout.close()
                self.assertEqual(process.wait(10), 141)
        self.release()
        self.cluster.wait_job(job)
        reading, writing = os.pipe()
        os.close(reading)
        quiet = self.start("job", "logs", job, stdout=writing, stderr=subprocess.PIPE)
        os.close(writing)
        self.assertEqual((quiet.communicate(timeout=30)[1], quiet.returncode), ("", 141))

    def test_output_that_cannot_be_written_is_an_error(self):
        job = self.submit(name="done", steps=40)
        self.cluster.wait_job(job)
        commands = (("job", "list"), ("job", "get", job), ("job", "get", job, "-o", "json"), ("job", "get", job, "-o", "yaml"), ("job", "logs", job),
                    ("job", "logs", job, "-o", "json"), ("job", "events", job), ("job", "events", job, "--follow"), ("job", "explain", job),
                    ("job", "watch", job, "-o", "json"), ("checkpoint", "list", job), ("checkpoint", "show", job, "latest"), ("worker", "list"),
                    ("status",), ("version",), ("completion", "bash"), ("--help",), ("job", "--help"))
        for args in commands:
            with self.subTest(" ".join(args)):
                with open("/dev/full", "w") as full:
                    done = subprocess.run([CLI, "--server", self.cluster.address, *args], stdout=full, stderr=subprocess.PIPE, text=True, timeout=30)
                self.assertEqual(done.returncode, 1, done.stderr)
                self.assertIn("cannot write the output: No space left on device", done.stderr)
                closed = subprocess.run(["bash", "-c", f"{CLI} --server {self.cluster.address} {' '.join(args)} >&-"], stderr=subprocess.PIPE, text=True,
                                        timeout=30)
                self.assertEqual(closed.returncode, 1, closed.stderr)
                self.assertIn("cannot write the output: Bad file descriptor", closed.stderr)
        with open("/dev/full", "w") as full:
            self.assertEqual(subprocess.run([CLI, "__complete", "job", ""], stdout=full, stderr=subprocess.PIPE, timeout=30).returncode, 1)
        for daemon in ("server/athanord", "worker/agent/athanor-agent"):
            with open("/dev/full", "w") as full:
                self.assertEqual(subprocess.run([str(BUILD / daemon), "--help"], stdout=full, stderr=subprocess.PIPE, timeout=30).returncode, 1, daemon)
        everything_closed = subprocess.run(["bash", "-c", f"{CLI} --server {self.cluster.address} job list <&- >&- 2>&-"], timeout=30)
        self.assertEqual(everything_closed.returncode, 1)

    def test_json_is_a_line_each_while_following(self):
        job = self.submit(name="json", steps=40)
        self.cluster.wait_job(job)
        lines = [json.loads(line) for line in self.cluster.cli("job", "logs", job, "-o", "json").stdout.splitlines()]
        self.assertTrue(all(set(line) == {"generation", "rank", "line"} for line in lines), lines[:3])
        self.assertEqual({line["rank"] for line in lines}, {0, 1})
        events = [json.loads(line) for line in self.cluster.cli("job", "events", job, "--follow", "-o", "json").stdout.splitlines()]
        self.assertEqual([e["sequence"] for e in events], [e["sequence"] for e in self.cluster.events(job)])


if __name__ == "__main__":
    main()
