"""The files of deploy/ fit the programs of this build: flags and variables exist, manifests are valid Kubernetes, units are valid systemd."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import unittest

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
BUILD = pathlib.Path(os.environ.get("ATHANOR_BUILD", ROOT / "build/release"))
DAEMONS = {"athanord": BUILD / "server/athanord", "athanor-agent": BUILD / "worker/agent/athanor-agent"}
KUBERNETES_VERSIONS = ("1.29.0", "1.37.0")


def help_of(program):
    return subprocess.run([DAEMONS[program], "--help"], capture_output=True, text=True, timeout=30, check=True).stdout


def variables_of(program):
    return set(re.findall(r"\(Env:([A-Z_]+)\)", help_of(program)))


def documents():
    for path in sorted((DEPLOY / "kubernetes").glob("*.yaml")):
        for document in yaml.safe_load_all(path.read_text()):
            yield path.name, document


def containers():
    for _, document in documents():
        yield from document.get("spec", {}).get("template", {}).get("spec", {}).get("containers", []) if document["kind"] != "Kustomization" else []


class DeployTest(unittest.TestCase):
    def test_manifests_are_valid_for_the_supported_versions(self):
        import kubernetes_validate
        for name, document in documents():
            if document["kind"] == "Kustomization":
                continue
            for version in KUBERNETES_VERSIONS:
                with self.subTest(file=name, kind=document["kind"], version=version):
                    kubernetes_validate.validate(document, version, strict=True)

    def test_kustomization_names_every_manifest(self):
        listed = set(yaml.safe_load((DEPLOY / "kubernetes/kustomization.yaml").read_text())["resources"])
        self.assertEqual(listed | {"kustomization.yaml"}, {p.name for p in (DEPLOY / "kubernetes").iterdir()})

    def test_every_variable_is_an_option_of_its_daemon(self):
        known = {name: variables_of(name) for name in DAEMONS}
        for _, document in documents():
            if document["kind"] == "ConfigMap":
                self.assertLessEqual(set(document["data"]), known[document["metadata"]["name"]])
        for container in containers():
            for variable in container.get("env", []):
                self.assertIn(variable["name"], known["athanor-agent"])
        services = yaml.safe_load((DEPLOY / "compose/local.yaml").read_text())["services"]
        for name, service in services.items():
            for variable in service.get("environment", {}):
                self.assertIn(variable, known["athanor-agent"] | {"ATHANOR_SERVER"}, name)
        for variable in re.findall(r"\b(ATHANOR_[A-Z_]+)=", (DEPLOY / "docker/Dockerfile").read_text()):
            options = (ROOT / "cmake/Options.cmake").read_text() + (ROOT / "scripts/setup.sh").read_text()
            self.assertTrue(variable in known["athanord"] | known["athanor-agent"] or variable in options, variable)

    def test_every_flag_is_an_option_of_its_daemon(self):
        for program in DAEMONS:
            text = help_of(program)
            unit = (DEPLOY / f"systemd/{program}.service").read_text()
            command = re.search(r"^ExecStart=(.*)$", unit, re.M).group(1)
            for flag in re.findall(r"--[a-z-]+", command):
                self.assertIn(f"{flag} ", text + " ", f"{program}.service")
        services = yaml.safe_load((DEPLOY / "compose/local.yaml").read_text())["services"]
        for name, service in services.items():
            program = "athanord" if name == "coordinator" else "athanor-agent"
            for flag in [a for a in service.get("command", []) if a.startswith("--")]:
                self.assertIn(flag, help_of(program), name)

    def test_claims_secrets_and_config_maps_exist(self):
        names = {(d["kind"], d["metadata"]["name"]) for _, d in documents() if d["kind"] != "Kustomization"}
        comment = (DEPLOY / "kubernetes/kustomization.yaml").read_text()
        for _, document in documents():
            if document["kind"] not in ("StatefulSet", "DaemonSet"):
                continue
            pod = document["spec"]["template"]["spec"]
            self.assertIn(("ServiceAccount", pod["serviceAccountName"]), names)
            mounted = {v["name"] for v in pod["volumes"]} | {
                c["metadata"]["name"] for c in document["spec"].get("volumeClaimTemplates", [])}
            for volume in pod["volumes"]:
                if "persistentVolumeClaim" in volume:
                    self.assertIn(("PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"]), names)
                if "secret" in volume:
                    self.assertIn(f"secret generic {volume['secret']['secretName']} ", comment)
            for container in pod["containers"]:
                self.assertEqual({m["name"] for m in container["volumeMounts"]}, mounted)
                self.assertTrue(container["securityContext"]["readOnlyRootFilesystem"])
                for source in container["envFrom"]:
                    self.assertIn(("ConfigMap", source["configMapRef"]["name"]), names)

    def test_alerts_ask_for_metrics_that_exist_and_have_a_section_in_operations(self):
        sections = {line[4:].strip() for line in (ROOT / "docs/operations.md").read_text().splitlines() if line.startswith("### ")}
        for rule in yaml.safe_load((DEPLOY / "prometheus/alerts.yaml").read_text())["groups"][0]["rules"]:
            with self.subTest(rule["alert"]):
                self.assertLessEqual(set(re.findall(r"athanor_[a-z_]+", rule["expr"])), self.exported_metrics())
                words = re.findall("[A-Z][a-z]+", rule["alert"].removeprefix("Athanor"))
                self.assertIn(" ".join(words).capitalize(), sections)
                self.assertNotIn("runbook_url", rule["annotations"], "a relative link leads nowhere")

    @staticmethod
    def exported_metrics():
        sources = "".join(p.read_text() for folder in ("server/observability", "worker/agent", "common/service")
                          for p in (ROOT / folder).glob("*.cc"))
        return set(re.findall(r'"(athanor_[a-z_]+)"', sources))

    def test_grafana_asks_prometheus_for_metrics_that_exist(self):
        exported = self.exported_metrics()
        panels = json.loads((DEPLOY / "grafana/overview.json").read_text())["panels"]
        rules = {"groups": [{"name": "panels", "rules": []}]}
        for panel in panels:
            for target in panel["targets"]:
                for metric in re.findall(r"athanor_[a-z_]+", target["expr"]):
                    self.assertIn(re.sub(r"_(bucket|count|sum)$", "", metric), exported, panel["title"])
                rules["groups"][0]["rules"].append({"record": f"panel:{panel['id']}:{target['refId']}", "expr": target["expr"]})
        if shutil.which("promtool"):
            with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
                json.dump(rules, file)  # JSON is YAML
                file.flush()
                done = subprocess.run(["promtool", "check", "rules", file.name], capture_output=True, text=True, timeout=60)
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_compose_scrapes_what_it_starts(self):
        services = yaml.safe_load((DEPLOY / "compose/local.yaml").read_text())["services"]
        scraped = yaml.safe_load((DEPLOY / "compose/prometheus.yaml").read_text())["scrape_configs"]
        targets = {t.split(":")[0]: job["job_name"] for job in scraped for t in job["static_configs"][0]["targets"]}
        self.assertLessEqual(set(targets), set(services))
        self.assertEqual({name for name, job in targets.items() if job == "athanor"}, {"coordinator"}, "agents are a job of their own")
        dockerfile = (DEPLOY / "docker/Dockerfile").read_text()
        for name, service in services.items():
            if "build" in service:
                self.assertRegex(dockerfile, rf"(?m)^FROM \S+ AS {service['build']['target']}$", name)

    @unittest.skipUnless(shutil.which("systemd-analyze"), "needs systemd")
    def test_units_are_valid(self):
        for program in DAEMONS:
            done = subprocess.run(["systemd-analyze", "verify", "--man=no", str(DEPLOY / f"systemd/{program}.service")],
                                  capture_output=True, text=True, timeout=60)
            # The programs are not installed under /usr/local here; anything else is an error of the unit.
            left = [line for line in done.stderr.splitlines() if f"{program}.service" in line and "is not executable" not in line]
            self.assertEqual(left, [])


if __name__ == "__main__":
    unittest.main(verbosity=2)
