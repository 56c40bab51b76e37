"""Snippets of README.md and docs/ as a reader types them. The C++ ones are programs of their own (CMakeLists.txt)."""

import contextlib
import os
import pathlib
import re
import shlex
import subprocess
import sys
import tempfile
import unittest

import snippets

ROOT = snippets.ROOT
BUILD = pathlib.Path(os.environ.get("ATHANOR_BUILD", ROOT / "build/release"))
sys.path.insert(0, str(ROOT / "scripts"))
from local_cluster import PROGRAMS, LocalCluster, Process, poll  # noqa: E402


def of_kind(kind):
    return [snippet for snippet in snippets.snippets() if snippet.test == kind]


class SnippetsTest(unittest.TestCase):
    def test_every_snippet_says_how_it_is_tried(self):
        found = list(snippets.snippets())
        self.assertGreater(len(found), 8)
        for snippet in found:
            with self.subTest(snippet.place):
                if snippet.test == "none":
                    self.assertTrue(snippet.arguments, "no reason")
                elif snippet.test:
                    self.assertEqual(snippet.language, snippets.LANGUAGES.get(snippet.test), "kind and language do not fit")
                else:
                    self.assertEqual(snippet.language, "text", "no <!-- test: ... --> above it")
        fences = sum(page.read_text().count("\n```") for page in snippets.pages())
        self.assertEqual(fences, 2 * len(found), "a fence that is not at the start of a line, or is not closed")

    def test_every_frame_is_used(self):
        frames = sorted(path.name.removesuffix(".cc.in") for path in snippets.FRAMES.glob("*.cc.in"))
        self.assertEqual(frames, sorted(snippet.arguments for snippet in of_kind("program")))

    def test_commands(self):
        for snippet in of_kind("cluster"):
            with self.subTest(snippet.place), LocalCluster(BUILD, agents=2) as cluster:
                names = dict(pair.split("=") for pair in snippet.arguments.split())
                if "JOB" in names:
                    cluster.wait_job(cluster.submit(f"examples/jobs/{names['JOB']}.yaml"))
                with tempfile.TemporaryDirectory(prefix="ath-") as folder:
                    for line in snippet.text.splitlines():
                        self.run_line(cluster, line, names, folder)

    def run_line(self, cluster, line, names, folder):
        """Optional arguments in brackets are left out."""
        words = [names.get(word, word) for word in shlex.split(line.split("[")[0], comments=True)]
        if not words or pathlib.Path(words[0]).name != "athanor":
            return
        words = [str(ROOT / word) if word.startswith("examples/") else word for word in words[1:]]
        program = str(cluster.program("athanor"))
        done = subprocess.run([program, "--server", cluster.address, *words], cwd=folder, capture_output=True, text=True, timeout=120,
                              stdin=subprocess.DEVNULL)
        self.assertEqual(done.returncode, 0, f"{line}\n{done.stdout}{done.stderr}")

    def test_daemons(self):
        """A cluster as the page makes it; its machine `head` is this one."""
        blocks = of_kind("daemons")
        self.assertTrue(blocks)
        with tempfile.TemporaryDirectory(prefix="ath-") as folder, contextlib.ExitStack() as stop:
            change = {"--data-dir": f"{folder}/data", "--checkpoint-root": f"{folder}/checkpoints", "--work-dir": f"{folder}/work",
                      "--host": "127.0.0.1", "--listen": "0.0.0.0:0"}
            text = re.sub(r"\bhead\b", "localhost", "".join(block.text for block in blocks)).replace("\\\n", "")
            daemon_lines = re.findall(r"^athanor.*$", text, re.M)
            self.assertEqual([line.split()[0] for line in daemon_lines], ["athanord", "athanor-agent"])
            subprocess.run(["bash", "-euc", re.sub(r"^athanor.*$", "", text, flags=re.M)], cwd=folder, check=True, capture_output=True)
            for line in daemon_lines:
                words = shlex.split(line)
                words = [change.get(before, word) for before, word in zip([""] + words, words)]
                ports = pathlib.Path(folder, f"{words[0]}.ports")
                daemon = Process(words[0], [BUILD / PROGRAMS[words[0]], *words[1:], "--metrics-listen", "127.0.0.1:0", "--ports-file", ports],
                                 pathlib.Path(folder, f"{words[0]}.log"), ports)
                daemon.cwd = folder
                stop.callback(daemon.start().stop)
                change.setdefault("--coordinator", f"localhost:{daemon.ports.get('grpc')}")
            files = ["--tls-ca", "ca.pem", "--tls-certificate", "you.pem", "--tls-key", "you.key", "--token-file", "token"]

            def ready():
                done = subprocess.run([BUILD / PROGRAMS["athanor"], "-s", change["--coordinator"], *files, "worker", "list"], cwd=folder,
                                      capture_output=True, text=True, timeout=60)
                self.assertEqual(done.returncode, 0, done.stderr)
                return "READY" in done.stdout
            poll(ready, 20, "the agent is let in")

    def test_configuration_files(self):
        for snippet in of_kind("config"):
            with self.subTest(snippet.place), LocalCluster(BUILD, agents=0) as cluster, \
                    tempfile.TemporaryDirectory(prefix="ath-") as home:
                folder = pathlib.Path(home, "athanor")
                folder.mkdir()
                host = snippet.text.split('server: "')[1].split('"')[0]
                # The cluster of the test has neither certificate nor token.
                text = snippet.text.replace(host, cluster.address).replace(", ca: ca.pem, token_file: token", "")
                (folder / "config.yaml").write_text(text)
                environment = {**os.environ, "XDG_CONFIG_HOME": home}
                environment.pop("ATHANOR_SERVER", None)
                done = subprocess.run([cluster.program("athanor"), "job", "list"], env=environment, capture_output=True, text=True,
                                      timeout=60, stdin=subprocess.DEVNULL)
                self.assertEqual(done.returncode, 0, done.stderr)

    def test_job_files(self):
        for snippet in of_kind("job"):
            with self.subTest(snippet.place), LocalCluster(BUILD, agents=1) as cluster, \
                    tempfile.TemporaryDirectory(prefix="ath-") as folder:
                path = pathlib.Path(folder, "job.yaml")
                path.write_text(snippet.text.replace("examples/", f"{ROOT}/examples/"))
                cluster.cli("job", "submit", path, "--dry-run")

    def test_cmake(self):
        consumer = (ROOT / "tests/package/consumer/CMakeLists.txt").read_text()
        for snippet in of_kind("package"):
            with self.subTest(snippet.place):
                for line in filter(None, map(str.strip, snippet.text.splitlines())):
                    self.assertIn(line.split("#")[0].strip(), consumer)


if __name__ == "__main__":
    unittest.main(verbosity=2)
