"""What happens to the coordinator when its disk does not do what it should: full, limited, cut, taken."""

import os
import re
import resource
import signal
import struct
import subprocess

from e2e_case import E2ECase, job_spec, main, poll

EXIT_STORE_BROKEN = 75


def record_ends(log):
    """Ends of the records in a log of RocksDB: blocks of 32 KiB; checksum (4 bytes), length (2), type (1), content."""
    data, at, ends = log.read_bytes(), 0, []
    while at + 7 <= len(data):
        left = 32768 - at % 32768
        if left < 7:
            at += left
            continue
        length, kind = struct.unpack_from("<HB", data, at + 4)
        at += 7 + length
        if kind in (1, 4):
            ends.append(at)
    return ends


class StoreCase(E2ECase):
    agents = 1

    def log_text(self):
        return (self.folder / "c/coordinator.log").read_text(errors="replace")

    def wait_exit(self, seconds=60):
        return self.cluster.coordinator.popen.wait(timeout=seconds)

    def expect_all_there(self, jobs):
        self.cluster.start_coordinator()
        for job in jobs:
            self.assertEqual(self.cluster.job(job)["state"], "QUEUED", job)

    def submit_waiting(self, count, prefix, **kwargs):
        """Jobs too large to ever start: only the store is at work."""
        return [self.submit(name=f"{prefix}-{i}", ranks=64, **kwargs) for i in range(count)]

    def newest_log(self):
        return max((p for p in self.cluster.data_dir.glob("*.log") if p.stat().st_size), key=lambda p: int(p.stem))


class FullDiskTest(StoreCase):
    """A tmpfs of its own under the data directory; freed by growing it, as an operator would."""

    mounted = False

    def _stop(self):
        try:
            super()._stop()
        finally:
            if self.mounted:
                subprocess.run(["umount", "-l", self.cluster.data_dir], check=False)

    def mount(self, size):
        if os.geteuid() != 0:
            self.skipTest("mounting a small tmpfs needs root")
        self.cluster.data_dir.mkdir(mode=0o700, exist_ok=True)
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size},mode=0700", "tmpfs", self.cluster.data_dir],
                              capture_output=True, text=True, check=False)
        if done.returncode != 0:
            self.skipTest(f"mounting a tmpfs is not permitted here: {done.stderr.strip()}")
        self.mounted = True

    def grow(self, size):
        subprocess.run(["mount", "-o", f"remount,size={size}", self.cluster.data_dir], check=True)

    def fill(self):
        fd = os.open(self.cluster.data_dir / "ballast", os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            while os.write(fd, b"x" * 65536):
                pass
        except OSError:
            pass
        finally:
            os.close(fd)

    def test_a_full_disk_stops_verbs_only_until_there_is_room(self):
        self.cluster.stop()
        self.mount("40m")
        self.cluster.start()
        kept = self.submit_waiting(3, "kept")
        training = self.submit(name="training", steps=10**7, interval=10**6, runner={"evaluate": {"interval": 10**6}})
        self.cluster.wait_step(training, 50)
        self.fill()
        # The first call may be the one that finds the disk full and waits with the core for room.
        job = self.write_job(job_spec(name="refused", ranks=64))
        self.cluster.cli("job", "submit", job, "--timeout", "2s", check=False)
        poll(lambda: self.cluster.scrape(path="/readyz")[0] == 503, 30, "not ready")
        refused = self.cluster.cli("job", "submit", job, "--timeout", "10s", check=False)
        self.assertNotEqual(refused.returncode, 0)
        self.assertRegex(refused.stderr, r"nothing can be stored now: no space left for \S+")
        self.assertIn("no space left", self.cluster.scrape(path="/readyz")[1])
        self.assertEqual(self.cluster.scrape(path="/healthz")[0], 200)
        self.assertEqual(len(self.cluster.ranks(training)), 2, "training goes on")
        self.assertEqual(self.cluster.job(kept[0])["state"], "QUEUED", "reads are answered")
        self.grow("120m")
        poll(lambda: self.cluster.scrape(path="/readyz")[0] == 200, 30, "ready again")
        self.assertIsNone(self.cluster.coordinator.popen.poll(), "the same process")
        after = self.submit_waiting(3, "after")
        step = self.cluster.step(training)
        self.cluster.wait_step(training, step + 50)
        self.assertEqual(int(self.cluster.job(training)["generation"]), 1)
        self.cluster.coordinator.kill()
        self.expect_all_there(kept + after)
        self.assertEqual(int(self.cluster.job(training)["generation"]), 1)
        self.cluster.cli("job", "cancel", training)
        self.cluster.wait_job(training, states={"CANCELLED"})


    def test_a_stop_does_not_wait_for_room(self):
        self.cluster.stop()
        self.mount("40m")
        self.cluster.start()
        kept = self.submit_waiting(2, "kept")
        self.fill()
        job = self.write_job(job_spec(name="refused", ranks=64))
        argv = [self.cluster.program("athanor"), "--server", self.cluster.address, "job", "submit", job, "--timeout", "60s"]
        waits = [subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for _ in range(3)]
        poll(lambda: self.cluster.scrape(path="/readyz")[0] == 503, 30, "not ready")
        self.cluster.coordinator.popen.send_signal(signal.SIGTERM)
        self.assertEqual(self.wait_exit(20), EXIT_STORE_BROKEN)
        self.assertIn("What could not be written was acknowledged to nobody", self.log_text())
        for one in waits:
            one.kill()
            one.wait()
        # And a start on it says why it cannot.
        self.cluster.start_coordinator(wait=False)
        self.assertEqual(self.wait_exit(20), 1)
        self.assertRegex(self.log_text(), r"athanord: .*[Nn]o space left")
        self.grow("120m")
        self.expect_all_there(kept)


class PrivateFilesTest(StoreCase):
    def test_an_open_data_directory_is_made_private(self):
        self.submit_waiting(1, "kept", env={"TOKEN": "secret"})
        self.cluster.coordinator.kill()
        os.chmod(self.cluster.data_dir, 0o755)
        for path in self.cluster.data_dir.iterdir():
            if path.is_file():
                path.chmod(0o644)
        self.cluster.start_coordinator()
        self.submit_waiting(1, "more")
        open_ones = [p for p in [self.cluster.data_dir, *self.cluster.data_dir.iterdir()]
                     if p.name != "checkpoints" and p.stat().st_mode & 0o077]
        self.assertEqual(open_ones, [])
        self.assertIn("MadePrivate", self.log_text())


class BrokenWriteTest(StoreCase):
    def test_a_write_that_fails_for_another_cause_ends_the_process(self):
        large = {"PADDING": "x" * 20000}  # the log grows well beyond the program's own output, which has the same limit
        acknowledged = self.submit_waiting(5, "kept", env=large)
        # A file size limit just above what the log holds: the next write fails with EFBIG, as a quota would with EDQUOT.
        limit = self.newest_log().stat().st_size + 1000
        resource.prlimit(self.cluster.coordinator.popen.pid, resource.RLIMIT_FSIZE, (limit, limit))
        lost = self.write_job(job_spec(name="lost", ranks=64, env=large))
        self.assertNotEqual(self.cluster.cli("job", "submit", lost, "--timeout", "5s", check=False).returncode, 0)
        self.assertEqual(self.wait_exit(), EXIT_STORE_BROKEN)
        fatal = [line for line in self.log_text().splitlines() if "StoreBroken" in line]
        self.assertEqual(len(fatal), 1, "one line says it")
        self.assertIn("File too large", fatal[0])
        self.assertIn("clear the cause and start again", fatal[0])
        self.expect_all_there(acknowledged)
        listed = self.cluster.cli("job", "list").stdout
        self.assertNotIn("lost", listed)


class DamagedLogTest(StoreCase):
    def refuse(self):
        self.cluster.start_coordinator(wait=False)
        self.assertEqual(self.wait_exit(), 1)
        return self.log_text()

    def test_a_log_cut_on_a_record_border_is_reported(self):
        jobs = self.submit_waiting(8, "kept")
        self.cluster.coordinator.kill()
        log = self.newest_log()
        ends = record_ends(log)
        whole = log.read_bytes()
        os.truncate(log, ends[-3])
        text = self.refuse()
        found = re.search(r"holds (\d+) commits, but (\d+) were acknowledged", text)
        self.assertIsNotNone(found, text[-2000:])
        self.assertEqual(int(found[2]) - int(found[1]), 2)
        self.assertIn("Restore a backup, or remove", text)
        self.assertIn("to accept the loss", text)
        # The backup, here the bytes that were cut off, brings everything back.
        log.write_bytes(whole)
        self.expect_all_there(jobs)

    def test_a_flipped_bit_is_reported(self):
        self.submit_waiting(8, "kept")
        self.cluster.coordinator.kill()
        log = self.newest_log()
        whole = bytearray(log.read_bytes())
        damaged = bytearray(whole)
        damaged[len(damaged) // 2] ^= 0x04
        log.write_bytes(damaged)
        self.assertRegex(self.refuse(), r"Corruption.*Restore a backup")
        log.write_bytes(whole)
        self.cluster.start_coordinator()

    def test_a_flipped_bit_in_a_table_costs_one_record(self):
        jobs = self.submit_waiting(20, "kept")
        for _ in range(2):  # a start writes the log out as a table
            self.cluster.coordinator.kill()
            self.cluster.start_coordinator()
        self.cluster.coordinator.kill()
        table = max(self.cluster.data_dir.glob("*.sst"), key=lambda p: p.stat().st_size)
        whole = bytearray(table.read_bytes())
        place = whole.index(b"j/" + jobs[7].encode()) + len(jobs[7]) + 20  # within the record
        whole[place] ^= 0x01
        table.write_bytes(whole)
        self.cluster.start_coordinator()
        listed = {job["id"] for job in self.cluster.cli("job", "list", parse=True)["jobs"]}
        self.assertEqual(set(jobs) - listed, {jobs[7]})
        self.assertIn(f"j/{jobs[7]}", self.cluster.cli("status").stdout)
        for event in ("StoreDamaged", "RecordPutAside", "StoreSalvaged"):
            self.assertIn(event, self.log_text())
        self.assertTrue((self.cluster.data_dir / "damaged-1" / table.name).exists(), "kept as evidence")
        more = self.submit_waiting(1, "more")
        self.cluster.coordinator.kill()
        self.expect_all_there([job for job in jobs if job != jobs[7]] + more)

    def test_a_second_coordinator_is_refused(self):
        argv = [str(a) for a in (self.cluster.program("athanord"), "--data-dir", self.cluster.data_dir, "--listen", "127.0.0.1:0",
                                 "--metrics-listen", "127.0.0.1:0")]
        second = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
        self.assertEqual(second.returncode, 1)
        self.assertIn("another coordinator uses this directory", second.stderr)


if __name__ == "__main__":
    main()
