"""The real Prometheus server scrapes coordinator and agents; the query API gives back what happened; promtool is content."""

import contextlib
import json
import shutil
import socket
import subprocess
import time
import unittest
import urllib.parse
import urllib.request

from e2e_case import ROOT, E2ECase, main, poll


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@unittest.skipUnless(shutil.which("prometheus") and shutil.which("promtool"), "needs the prometheus package")
class ObservabilityTest(E2ECase):
    def setUp(self):
        super().setUp()
        jobs = {"athanor": [self.cluster.coordinator], "athanor-agent": self.cluster.agents.values()}
        config = self.folder / "prometheus.yml"
        config.write_text(json.dumps({
            "global": {"scrape_interval": "200ms", "scrape_timeout": "200ms"},
            "rule_files": [str(ROOT / "deploy/prometheus/alerts.yaml")],
            "scrape_configs": [{"job_name": name, "static_configs": [{"targets": [f"127.0.0.1:{p.ports['metrics']}" for p in processes]}]}
                               for name, processes in jobs.items()]}))
        self.port = free_port()
        self.server = subprocess.Popen(
            ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={self.folder / 'tsdb'}",
             f"--web.listen-address=127.0.0.1:{self.port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.addCleanup(self.server.wait, 20)
        self.addCleanup(self.server.terminate)

    def query(self, text):
        url = f"http://127.0.0.1:{self.port}/api/v1/query?" + urllib.parse.urlencode({"query": text})
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                found = json.load(answer)["data"]["result"]
        except OSError:
            return None
        return [(r["metric"], float(r["value"][1])) for r in found]

    def value(self, text):
        found = self.query(text)
        return found[0][1] if found else None

    def test_scraped_by_the_real_server(self):
        job = self.submit(name="scraped", steps=600, interval=100, task=self.hold(step=305), timeouts={"hang": "120s"})
        self.cluster.wait_step(job, 300)
        poll(lambda: self.value("sum(up)") == 3, 30, "three targets are up")
        poll(lambda: (self.value(f'athanor_job_step{{job="athanor",job_id="{job}",job_name="scraped"}}') or 0) > 0, 30,
             "the step is scraped")
        self.assertGreaterEqual(self.value(f'athanor_job_idle_seconds{{job_id="{job}"}}'), 0)
        poll(lambda: self.value(f'athanor_job_checkpoint_age_seconds{{job_id="{job}"}}') is not None, 30, "the checkpoint's age is scraped")
        folders = {"data_dir", "checkpoint_root", "work_dir"}
        poll(lambda: {labels["folder"] for labels, free in self.query("athanor_disk_free_bytes > 0") or []} == folders, 30, "space is scraped")
        self.assertIsNotNone(self.cluster.kill_rank(job, 0))
        self.cluster.wait_job(job)
        poll(lambda: self.query(f'athanor_job_idle_seconds{{job_id="{job}"}}') == [], 30, "an ended job has no series")
        poll(lambda: (self.value('sum(athanor_job_restarts_total{cause="signal"})') or 0) >= 1, 30, "the restart is counted")
        poll(lambda: (self.value('athanor_jobs{state="succeeded"}') or 0) == 1, 30, "the job is counted as succeeded")
        self.assertGreater(self.value("sum(athanor_checkpoint_bytes_total)"), 0)
        self.assertGreater(self.value("sum(athanor_recovery_seconds_count)"), 0)
        self.assertGreater(self.value("sum(athanor_rpc_duration_seconds_count)"), 0)
        self.assertGreater(self.value("sum(athanor_store_write_seconds_count)"), 0)
        rank_labels = self.query('{__name__=~"athanor_.*", rank!=""}')
        self.assertEqual(rank_labels, [], "no per-rank label")
        self.assertEqual(self.query('{exported_job!=""}'), [], "no label that Prometheus sets itself")

    def test_promtool_and_probes(self):
        for process in [self.cluster.coordinator, *self.cluster.agents.values()]:
            status, text = self.cluster.scrape(process)
            self.assertEqual(status, 200)
            done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True, timeout=30)
            self.assertEqual((done.returncode, done.stderr.strip()), (0, ""), process.name)
            self.assertEqual(self.cluster.scrape(process, "/healthz")[0], 200)
            self.assertEqual(self.cluster.scrape(process, "/readyz")[0], 200)

    def test_health_beside_silent_callers(self):
        for process in [self.cluster.coordinator, *self.cluster.agents.values()]:
            with contextlib.ExitStack() as stack:
                for i in range(300):
                    caller = stack.enter_context(socket.create_connection(("127.0.0.1", process.ports["metrics"]), 5))
                    caller.send(b"GET /heal"[:i % 10])
                start = time.monotonic()
                self.assertEqual(self.cluster.scrape(process, "/healthz")[0], 200)
                self.assertLess(time.monotonic() - start, 1, process.name)

    def test_alert_rules(self):
        for args in (["check", "rules", "alerts.yaml"], ["test", "rules", "alerts_test.yaml"]):
            done = subprocess.run(["promtool", *args], cwd=ROOT / "deploy/prometheus", capture_output=True, text=True, timeout=60)
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)


if __name__ == "__main__":
    main()
