"""Every example of every --help and of docs/cli.md, run as it is written."""

import os
import re
import shlex
import subprocess

from e2e_case import BUILD, ROOT, E2ECase, main
from local_cluster import PROGRAMS, Process

# What has to be there before an example makes sense; an example of another command has to be put into one of these.
FIRST = ("job submit",)
AFTER_A_JOB = ("job list", "job get", "job watch", "job explain", "job events", "job logs", "checkpoint list", "checkpoint show", "checkpoint tag",
               "checkpoint export", "checkpoint import", "checkpoint untag", "checkpoint delete", "worker list", "status", "version", "job delete")
WHILE_A_JOB_RUNS = ("job suspend", "job resume", "job cancel")
LAST = ("worker drain", "worker undrain")
# The example's job in a few seconds, with a checkpoint at step 120.
SHORT = "--set runner.steps=240 --set runner.checkpoint.interval=20 --set runner.checkpoint.keep_latest_k=100 --set runner.evaluate.interval=60"


def helps(program, words=()):
    """The help of a program and of all commands below it."""
    text = subprocess.run([str(program), *words, "--help"], capture_output=True, text=True, timeout=30, check=True).stdout
    yield text
    commands = re.search(r"^Subcommands:\n((?:  .*\n?)+)", text, re.M)
    for line in commands.group(1).splitlines() if commands else ():
        if re.match(r"  \S", line):
            yield from helps(program, (*words, line.split()[0]))


def examples(text):
    block = re.search(r"^Examples?:\n((?:  .*\n?)+)", text, re.M)
    return [line.strip() for line in block.group(1).splitlines()] if block else []


def documented():
    blocks = re.findall(r"^```sh\n(.*?)^```", (ROOT / "docs/cli.md").read_text(), re.M | re.S)
    return [line for block in blocks for line in block.splitlines() if line and not line.startswith("#")]


class ExamplesTest(E2ECase):
    def run_all(self, lines, wanted):
        for start in wanted:
            for line in lines:
                if line.split(" #")[0].startswith(f"athanor {start}"):
                    with self.subTest(line):
                        self.run_one(line)
                        self.seen.add(line)

    def run_one(self, line):
        command = f"{line.split(' #')[0]} {SHORT}" if " submit " in line and "--dry-run" not in line else line
        done = subprocess.run(["bash", "-c", command], cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=120,
                              stdin=subprocess.DEVNULL)
        self.assertEqual(done.returncode, 0, f"{command}\n{done.stdout}{done.stderr}")

    def test_each_works_as_it_is_written(self):
        cli = BUILD / PROGRAMS["athanor"]
        lines = [line for text in helps(cli) for line in examples(text)]
        self.assertGreater(len(lines), 20)
        documented_lines = documented()
        self.assertGreater(len(documented_lines), 10)
        lines = list(dict.fromkeys(lines + documented_lines))
        self.seen = set()
        (self.folder / "examples").symlink_to(ROOT / "examples")
        self.environment = {**os.environ, "PATH": f"{cli.parent}:{os.environ['PATH']}", "ATHANOR_SERVER": self.cluster.address, "NO_COLOR": "1"}
        submits = [line for line in lines if line.startswith("athanor job submit")]
        first, others = submits[:1], submits[1:]
        self.run_all(first, FIRST)
        self.run_all(lines, AFTER_A_JOB)
        self.assertTrue((self.folder / "digits.safetensors").exists())
        self.run_all(others, FIRST)
        self.submit(name="digits", steps=10**7)
        self.run_all(lines, WHILE_A_JOB_RUNS)
        self.run_all(lines, LAST)
        for line in lines:
            if line.startswith(("source <(", "cat ")):
                with self.subTest(line):
                    self.run_one(line)
                    self.seen.add(line)
        self.assertEqual([line for line in lines if line not in self.seen], [], "every example is run")

    def test_daemons_start_as_their_help_says(self):
        for name, change in (("athanord", {"/var/lib/athanor": self.folder / "data", "127.0.0.1:7070": "127.0.0.1:0"}),
                             ("athanor-agent", {"127.0.0.1:7070": self.cluster.address})):
            lines = examples(next(helps(BUILD / PROGRAMS[name])))
            self.assertTrue(lines, name)
            for line in lines:
                words = [str(change.get(word, word)) for word in shlex.split(line)]
                self.assertEqual(words[0], name)
                more = ["--metrics-listen", "127.0.0.1:0", "--ports-file", self.folder / f"{name}.ports"]
                more += ["--work-dir", self.folder / "example-agent"] if name == "athanor-agent" else []
                daemon = Process(name, [BUILD / PROGRAMS[name], *words[1:], *more], self.folder / f"{name}.log", self.folder / f"{name}.ports")
                daemon.start()
                self.assertEqual(daemon.stop(), 0, daemon.tail())


if __name__ == "__main__":
    main()
