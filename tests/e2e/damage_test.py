"""Damaged checkpoints and full disks."""

import os
import pathlib
import subprocess
import unittest

from e2e_case import E2ECase, main, poll


def mount_tmpfs(folder, size):
    folder.mkdir(parents=True, exist_ok=True)
    return subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=0700", "tmpfs", str(folder)], capture_output=True).returncode == 0


def fill(path):
    """Writes until the disk is full."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT)
    try:
        while os.write(fd, b"x" * 4096) == 4096:
            pass
    except OSError:
        pass
    finally:
        os.close(fd)


class DamagedShardTest(E2ECase):
    def damage_and_resume(self, damage):
        expected = self.undisturbed_weights(steps=4000, interval=100)
        job = self.submit(name="damaged", steps=4000, interval=100)
        self.cluster.wait_step(job, 500)
        self.cluster.cli("job", "suspend", job, "--wait")
        committed = sorted(self.cluster.checkpoints(job), key=lambda c: -int(c["step"]))
        self.assertGreaterEqual(len(committed), 2)
        shard = sorted(pathlib.Path(committed[0]["path"]).glob("*.safetensors"))[-1]
        damage(shard)
        self.cluster.cli("job", "resume", job)
        final = self.cluster.wait_job(job)
        states = {int(c["step"]): c["state"] for c in self.cluster.checkpoints(job)}
        messages = " ".join(e.get("message", "") for e in self.cluster.events(job))
        self.assertIn(shard.name, messages, "the damage is reported with its file")
        self.assertEqual(int(final["generations"][-1]["resumeStep"]), int(committed[1]["step"]))
        self.assertNotEqual(states.get(int(committed[0]["step"])), None)
        self.assertEqual(self.final_weights(job), expected)

    def test_truncated_shard(self):
        self.damage_and_resume(lambda shard: os.truncate(shard, shard.stat().st_size // 2))

    def test_flipped_bit(self):
        def flip(shard):
            data = bytearray(shard.read_bytes())
            data[len(data) * 3 // 4] ^= 0x10
            shard.write_bytes(data)
        self.damage_and_resume(flip)


@unittest.skipUnless(os.geteuid() == 0, "mounting a small tmpfs needs root")
class DiskFullTest(E2ECase):
    def setUp(self):
        super().setUp()
        self.mounts = []

    def tearDown(self):
        for folder in self.mounts:
            subprocess.run(["umount", "-l", str(folder)], check=False)

    def small(self, folder, size):
        if not mount_tmpfs(folder, size):
            self.skipTest("cannot mount a tmpfs here")
        self.mounts.append(folder)

    def test_full_disk_under_checkpoints_does_not_stop_training(self):
        self.cluster.stop()
        self.small(self.cluster.checkpoint_root, "3m")
        ballast = self.cluster.checkpoint_root / "ballast"
        self.cluster.start()
        job = self.submit(name="full", steps=20000, interval=100)
        self.cluster.wait_step(job, 300)
        fill(ballast)
        failures = poll(lambda: [e for e in self.cluster.events(job) if e["type"] == "CheckpointFailed"], 30, "a failed checkpoint")
        self.assertIn("No space left", failures[0]["message"])
        step = self.cluster.step(job)
        self.cluster.wait_step(job, step + 200)
        ballast.unlink()
        newest = max(int(c["step"]) for c in self.cluster.checkpoints(job))
        poll(lambda: max(int(c["step"]) for c in self.cluster.checkpoints(job)) > newest, 30, "checkpoints succeed again")
        final = self.cluster.wait_job(job)
        self.assertEqual(int(final["generation"]), 1)
        self.assertIn("athanor_checkpoint_failures_total", self.cluster.scrape()[1])

    def test_full_disk_under_the_store(self):
        self.cluster.stop()
        self.small(self.cluster.data_dir, "24m")
        self.cluster.start()
        kept = self.submit(name="kept", steps=50)
        self.cluster.wait_job(kept)
        ballast = self.cluster.data_dir / "ballast"
        fill(ballast)
        refused = None
        for index in range(2000):
            done = self.cluster.cli("job", "submit", self.write_job(__import__("e2e_case").job_spec(name="big", ranks=4, labels={"pad": "x" * 60})),
                                    "--timeout", "5s", check=False)
            if done.returncode != 0:
                refused = done
                break
        self.assertIsNotNone(refused, "a full disk was never noticed")
        self.assertRegex(refused.stderr, "(?i)space|store|unavailable")
        ballast.unlink()
        if self.cluster.coordinator.popen.poll() is not None:
            self.assertIn("space", self.cluster.coordinator.tail())
            self.cluster.start_coordinator()
        poll(lambda: self.cluster.scrape(path="/readyz")[0] == 200, 20, "ready again")
        self.assertEqual(self.cluster.job(kept)["state"], "SUCCEEDED")
        for found in self.cluster.cli("job", "list", parse=True).get("jobs", []):
            if found["state"] not in ("SUCCEEDED", "CANCELLED"):
                self.cluster.cli("job", "cancel", found["id"])


if __name__ == "__main__":
    main()
