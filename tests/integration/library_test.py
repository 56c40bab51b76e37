"""The library's files read by the field's own programs, and theirs read by the library: PyTorch, safetensors, TensorBoard."""

import collections
import csv
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest
import unittest.mock

import torch
from safetensors.torch import load_file, save_file

TOOL = pathlib.Path(os.environ["ATHANOR_BUILD"]) / "tests/integration/library_tool"
DTYPES = {torch.float32: "float", torch.float64: "double", torch.float16: "c10::Half", torch.bfloat16: "c10::BFloat16",
          torch.int64: "long int", torch.int32: "int", torch.int16: "short int", torch.int8: "signed char",
          torch.uint8: "unsigned char", torch.bool: "bool"}


def wandb_records(data):
    """The records of a .wandb file: LevelDB's log format behind 7 bytes of its own."""
    from wandb.proto.wandb_internal_pb2 import Record
    at, block, parts = 7, 32768, b""
    while at + 7 <= len(data):
        if block - at % block < 7:
            at += block - at % block
            continue
        length, kind = int.from_bytes(data[at + 4:at + 6], "little"), data[at + 6]
        parts += data[at + 7:at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield Record.FromString(parts)
            parts = b""


class LibraryTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="ath-")
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def tool(self, *args, check=True):
        done = subprocess.run([str(TOOL), *map(str, args)], capture_output=True, text=True, timeout=120, cwd=self.folder)
        if check:
            self.assertEqual(done.returncode, 0, done.stderr)
            return json.loads(done.stdout)
        return done

    def train(self, **config):
        base = {"seed": 1, "steps": 40, "log_interval": 10, "workspace_root": str(self.folder / "runs"),
                "optim": {"type": "adamw", "lr": 0.01}, "evaluate": {"interval": 20}, "checkpoint": {"interval": 10},
                "dataloader": {"batch_size": 32}}
        return self.tool("train", json.dumps({**base, **config}))

    def same(self, dumped, tensors):
        self.assertEqual(set(dumped), set(tensors))
        for name, tensor in tensors.items():
            self.assertEqual(dumped[name]["dtype"], DTYPES[tensor.dtype], name)
            self.assertEqual(dumped[name]["shape"], list(tensor.shape), name)
            self.assertAlmostEqual(dumped[name]["sum"], tensor.double().sum().item(), places=4, msg=name)

    # ---- weights of PyTorch ----
    def test_state_dict_of_a_module(self):
        model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Flatten(), torch.nn.Linear(16, 2))
        for protocol in (2, 4, 5):
            path = self.folder / f"p{protocol}.pt"
            torch.save(model.state_dict(), path, pickle_protocol=protocol)
            self.same(self.tool("dump", path), model.state_dict())

    def test_every_dtype_shape_view_and_nesting(self):
        base = torch.arange(24, dtype=torch.float32).reshape(4, 6)
        tensors = {f"t.{i}": torch.arange(6).reshape(2, 3).to(dtype) for i, dtype in enumerate(DTYPES)}
        tensors |= {"view": base[1:3, ::2], "transposed": base.t(), "scalar": torch.tensor(3.5), "empty": torch.empty(0, 4),
                    "expanded": torch.ones(1, 3).expand(5, 3), "shared": base}
        torch.save(tensors, self.folder / "all.pt")
        self.same(self.tool("dump", self.folder / "all.pt"), tensors)
        nested = {"state_dict": collections.OrderedDict(w=base, p=torch.nn.Parameter(base[0].clone())), "epoch": 3, "args": ["a"],
                  "big": 1 << 40, "negative": -5, "pi": 3.25}
        torch.save(nested, self.folder / "nested.pt")
        self.same(self.tool("dump", self.folder / "nested.pt"), {"state_dict.w": base, "state_dict.p": base[0]})

    def test_a_written_state_dict_is_loaded_by_pytorch(self):
        model = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.Linear(16, 2))
        state = model.state_dict() | {"half": torch.arange(5).to(torch.bfloat16), "flags": torch.tensor([True, False]),
                                      "scalar": torch.tensor(3.5, dtype=torch.float64), "empty": torch.empty(0, 4)}
        save_file(state, self.folder / "in.safetensors")
        for ending in ("pt", "pth", "pt.zst"):
            self.tool("convert", self.folder / "in.safetensors", self.folder / f"out.{ending}")
        self.tool("convert", self.folder / "out.pt.zst", self.folder / "again.pt")
        for name in ("out.pt", "out.pth", "again.pt"):
            loaded = torch.load(self.folder / name, weights_only=True)
            self.assertEqual(sorted(loaded), sorted(state))
            for key, tensor in state.items():
                self.assertEqual(loaded[key].dtype, tensor.dtype, key)
                self.assertTrue(torch.equal(loaded[key], tensor), key)
            model.load_state_dict({key: loaded[key] for key in model.state_dict()})

    def test_an_optimizer_beside_the_model_does_not_disturb(self):
        model = torch.nn.Linear(3, 2)
        optimizer = torch.optim.Adam(model.parameters())
        model(torch.ones(1, 3)).sum().backward()
        optimizer.step()
        torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, self.folder / "both.pt")
        self.same(self.tool("dump", self.folder / "both.pt"), {f"model.{k}": v for k, v in model.state_dict().items()})

    def test_nothing_in_a_file_is_executed(self):
        class Evil:
            def __reduce__(self):
                return os.system, (f"touch {marker}",)
        marker = self.folder / "executed"
        torch.save({"w": torch.ones(2), "evil": Evil()}, self.folder / "evil.pt")
        self.same(self.tool("dump", self.folder / "evil.pt"), {"w": torch.ones(2)})
        self.assertFalse(marker.exists())

    def test_damaged_and_foreign_files_are_named(self):
        torch.save({"w": torch.arange(1000.0)}, self.folder / "good.pt")
        good = (self.folder / "good.pt").read_bytes()
        cases = {"cut.pt": good[:-100], "short.pt": good[:200], "empty.pt": b"", "text.pt": b"hello, this is no file of tensors"}
        at = good.index(b"_rebuild_tensor_v2")
        cases["pickle.pt"] = good[:at] + b"\xff" * 40 + good[at + 40:]
        for name, data in cases.items():
            (self.folder / name).write_bytes(data)
            done = self.tool("dump", self.folder / name, check=False)
            self.assertEqual(done.returncode, 1, name)
            self.assertIn(name, done.stderr)
            self.assertLess(len(done.stderr), 600, "no backtrace")
        torch.jit.script(torch.nn.Linear(2, 2)).save(self.folder / "script.pt")
        self.assertIn("TorchScript", self.tool("dump", self.folder / "script.pt", check=False).stderr)
        self.assertIn("NOT_FOUND", self.tool("dump", self.folder / "absent.pt", check=False).stderr)

    # ---- a run's workspace ----
    def test_a_workspace_has_what_people_look_for(self):
        run = self.train(tensorboard=True, heartbeat={"enabled": True})
        root = pathlib.Path(run["dir"])
        self.assertEqual(run["notes"], [])
        results = json.loads((root / "results.json").read_text())["results"]
        self.assertEqual(sorted(results, key=int), ["20", "40"])
        best = json.loads((root / "best.json").read_text())
        self.assertLessEqual(best["val"]["loss"], min(r["val"]["loss"] for r in results.values()) + 1e-7)
        summary = json.loads((root / "summary.json").read_text())
        self.assertEqual((summary["status"], summary["global_step"]), ("finished", 40))
        self.assertEqual(json.loads((root / "heartbeats/rank-00000.json").read_text())["status"], "closed")
        log = next((root / "logs").glob("*.log")).read_text()
        self.assertRegex(log, r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} \[INFO\] training on train \[10/40\]\t.*loss: \d\.\d{4}")
        self.assertIn("steps: 40", (root / "metadata/config.full.yaml").read_text())
        self.assertIn("steps: 40", (root / "metadata/config.diff.yaml").read_text())

    def test_tensorboard_reads_the_events(self):
        try:
            from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
        except ImportError:
            self.skipTest("tensorboard is not installed")
        run = self.train(tensorboard=True)
        folder = next((pathlib.Path(run["dir"]) / "tensorboard").iterdir())
        events = EventAccumulator(str(folder))
        events.Reload()
        self.assertIn("train/loss", events.Tags()["scalars"])
        self.assertEqual([e.step for e in events.Scalars("train/loss")], [10, 20, 30, 40])
        self.assertEqual([e.step for e in events.Scalars("val/accuracy")], [20, 40])
        self.assertAlmostEqual(events.Scalars("val/loss")[-1].value, run["metrics"]["val.loss"], places=5)

    def test_tables_of_metrics(self):
        run = self.train(csv=True, jsonl=True, dir=str(self.folder / "run"))
        rows = list(csv.DictReader((self.folder / "run/metrics.csv").open()))
        losses = [(int(r["step"]), float(r["value"])) for r in rows if r["name"] == "train.loss"]
        self.assertEqual([step for step, _ in losses], [10, 20, 30, 40])
        lines = [json.loads(line) for line in (self.folder / "run/metrics.jsonl").read_text().splitlines()]
        self.assertEqual([(l["step"], l["train.loss"]) for l in lines if "train.loss" in l],
                         [(s, unittest.mock.ANY) for s, _ in losses])
        self.assertAlmostEqual([l for l in lines if "val.loss" in l][-1]["val.loss"], run["metrics"]["val.loss"], places=6)
        # A run that continues appends, also after a line that a crash cut off.
        with (self.folder / "run/metrics.jsonl").open("a") as file:
            file.write('{"cut')
        self.train(csv=True, jsonl=True, dir=str(self.folder / "run"), auto_resume=True, steps=60)
        text = (self.folder / "run/metrics.jsonl").read_text().splitlines()
        self.assertEqual(json.loads(text[text.index('{"cut') + 1])["step"], 50)
        self.assertEqual((self.folder / "run/metrics.csv").read_text().count("time,step"), 1)

    def test_traces_of_windows(self):
        run = self.train(dir=str(self.folder / "run"), profiling={
            "enabled": True, "wait": 2, "warmup": 1, "active": 3, "repeat": 2, "record_shapes": True, "profile_memory": True})
        self.assertEqual(run["notes"], [])
        traces = sorted((self.folder / "run/profiles").glob("*/rank-00000/*.json"))
        self.assertEqual([t.name for t in traces], ["trace-000000000003.json", "trace-000000000009.json"])
        for trace in traces:
            events = json.loads(trace.read_text())["traceEvents"]
            names = collections.Counter(e.get("name") for e in events if e.get("ph") == "X")
            for part in ("data", "forward", "backward", "optimizer"):
                self.assertEqual(names[part], 3, part)
            self.assertGreater(names["aten::addmm"], 0)
            shaped = [e for e in events if e.get("name") == "aten::addmm" and "Input Dims" in e.get("args", {})]
            self.assertTrue(shaped, "record_shapes")
            self.assertTrue([e for e in events if e.get("name") == "[memory]"], "profile_memory")

    def test_a_run_becomes_one_of_weights_and_biases(self):
        refused = self.tool("train", json.dumps({"wandb": True}), check=False)
        self.assertIn("scripts/wandb_import.py", refused.stderr)
        run = self.train(jsonl=True, dir=str(self.folder / "run"))
        script = pathlib.Path(__file__).parents[2] / "scripts/wandb_import.py"
        done = subprocess.run([sys.executable, str(script), str(self.folder / "run"), "--project", "digits"], capture_output=True,
                              text=True, timeout=120, env={**os.environ, "HOME": str(self.folder)})
        self.assertEqual(done.returncode, 0, done.stderr)
        (log,) = pathlib.Path(done.stdout.strip()).glob("*.wandb")
        records = list(wandb_records(log.read_bytes()))
        history = [{i.key or ".".join(i.nested_key): json.loads(i.value_json) for i in r.history.item}
                   for r in records if r.WhichOneof("record_type") == "history"]
        self.assertEqual([h["_step"] for h in history], [10, 20, 30, 40])
        self.assertAlmostEqual(history[-1]["val/loss"], run["metrics"]["val.loss"], places=6)
        config = {i.key: json.loads(i.value_json) for r in records if r.WhichOneof("record_type") == "run" for i in r.run.config.update}
        self.assertEqual(config["steps"], 40)

    def test_auto_resume_starts_and_continues(self):
        first = self.train(auto_resume=True, dir=str(self.folder / "run"))
        self.assertEqual(first["resumed_from"], -1)
        second = self.train(auto_resume=True, dir=str(self.folder / "run"), steps=60)
        self.assertEqual((second["resumed_from"], second["step"]), (40, 60))
        newest = max((self.folder / "run/checkpoints").iterdir())
        (shard,) = newest.glob("*.safetensors")
        self.assertIn("model.0.weight", load_file(shard))
        # The newest is damaged: the one before is taken.
        data = bytearray(shard.read_bytes())
        data[-10] ^= 1
        shard.write_bytes(bytes(data))
        third = self.train(auto_resume=True, dir=str(self.folder / "run"), steps=70)
        self.assertLess(third["resumed_from"], 60)
        self.assertIn("damaged", " ".join(third["notes"]))

    def test_a_run_goes_on_from_a_checkpoint_of_format_1(self):
        golden = pathlib.Path(__file__).resolve().parents[1] / "data/checkpoints/format1/run/step-000000000006"
        config = {"seed": 1, "steps": 12, "optim": {"type": "adam", "lr": 0.01}, "evaluate": {"interval": 100}, "dataloader": {"batch_size": 32}, "checkpoint": {"interval": 3}}
        resumed = self.train(**config, dir=str(self.folder / "new"), resume=str(golden))
        self.assertEqual((resumed["resumed_from"], resumed["step"]), (6, 12))
        self.assertAlmostEqual(resumed["metrics"]["val.loss"], 0.3983854502439499, places=6)  # as the run that it is of ended
        self.tool("export", golden, self.folder / "old.safetensors")
        self.tool("export", self.folder / "new/checkpoints/latest", self.folder / "new.safetensors")
        self.assertEqual(set(load_file(self.folder / "old.safetensors")), set(load_file(self.folder / "new.safetensors")))

    def test_resume_and_pretrained(self):
        first = self.train(dir=str(self.folder / "a"))
        checkpoint = str(max((self.folder / "a/checkpoints").iterdir()))
        resumed = self.train(dir=str(self.folder / "b"), resume=checkpoint, steps=50)
        self.assertEqual((resumed["resumed_from"], resumed["step"]), (40, 50))
        from_folder = self.train(dir=str(self.folder / "c"), pretrained=checkpoint, steps=1)
        self.assertEqual(from_folder["resumed_from"], -1)
        weights = {k.removeprefix("model."): v for k, v in load_file(next(pathlib.Path(checkpoint).glob("*.safetensors"))).items()
                   if k.startswith("model.")}
        save_file(weights, self.folder / "w.safetensors")
        torch.save({f"module.{k}": v for k, v in weights.items()}, self.folder / "w.pt")
        for path in ("w.safetensors", "w.pt"):
            again = self.train(dir=str(self.folder / f"run-{path}"),
                               pretrained=str(self.folder / path), steps=1)
            self.assertEqual(again["metrics"], from_folder["metrics"], path)
        self.assertGreater(from_folder["metrics"]["val.accuracy"], 0.7, "one step from trained weights is still good")

    def test_exported_weights_are_taken_by_a_python_module_as_they_are(self):
        self.train(dir=str(self.folder / "run"), ema={"enabled": True, "decay": 0.5})
        checkpoint = str(max((self.folder / "run/checkpoints").glob("step-*")))
        module = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2))
        shard = load_file(next(pathlib.Path(checkpoint).glob("*.safetensors")))
        for name, load in (("w.safetensors", load_file), ("w.pt", lambda path: torch.load(path, weights_only=True))):
            self.tool("export", checkpoint, self.folder / name)
            module.load_state_dict(load(self.folder / name))  # strict: nothing missing, nothing more
            self.assertTrue(torch.equal(module[0].weight, shard["ema.0.weight"]), "the average is preferred")
        again = self.train(dir=str(self.folder / "again"), pretrained=str(self.folder / "w.pt"), steps=1)
        self.assertGreater(again["metrics"]["val.accuracy"], 0.7)

    def test_weights_that_do_not_fit_are_listed(self):
        torch.save({"0.weight": torch.ones(3, 3), "other": torch.ones(1)}, self.folder / "bad.pt")
        done = self.tool("train", json.dumps({"steps": 1, "dir": str(self.folder / "x"), "optim": {"type": "sgd"},
                                              "pretrained": str(self.folder / "bad.pt")}), check=False)
        self.assertEqual(done.returncode, 1)
        for text in ("0.bias", "[3, 3] in the file", "other"):
            self.assertIn(text, done.stderr)


if __name__ == "__main__":
    unittest.main(verbosity=2)
