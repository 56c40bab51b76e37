"""`athanor checkpoint import` and what `export` runs, against the packages whose formats they are: torch.save, safetensors, Hugging Face's
huggingface_hub, torch.distributed.checkpoint."""

import json
import os
import pathlib
import pickle
import shutil
import subprocess
import sys
import unittest
import warnings

import huggingface_hub
import safetensors.torch
import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

from foreign_files import ForeignFiles, hex_of

BUILD = pathlib.Path(os.environ["ATHANOR_BUILD"])
CLI, TRAINER = BUILD / "client/athanor", BUILD / "worker/trainer/athanor-trainer"
warnings.filterwarnings("ignore")

# Two ranks save tensors that are divided between them, as FSDP leaves them.
TWO_RANKS = """
import os, sys, torch, torch.distributed as dist, torch.distributed.checkpoint as dcp
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard, distribute_tensor
rank, folder = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method=f"file://{folder}.rendezvous", rank=rank, world_size=2)
mesh = init_device_mesh("cpu", (2,))
full = torch.arange(35.).reshape(7, 5)
state = {"model": {"w": distribute_tensor(full, mesh, [Shard(0)]), "columns": distribute_tensor(full + 100, mesh, [Shard(1)]), "b": torch.ones(3)},
         "optim": {"state": {"w": {"exp_avg": distribute_tensor(full / 3, mesh, [Shard(0)]), "step": torch.tensor(4.)}}, "param_groups": [{"lr": 0.5}]}}
dcp.save(state, checkpoint_id=folder)
dist.barrier()
os._exit(0)  # what PyTorch does at its end is not what is tested
"""


def weights():
    torch.manual_seed(3)
    return {"embed.weight": torch.randn(17, 8), "layers.0.w": torch.randn(8, 8).to(torch.bfloat16), "layers.0.flag": torch.tensor([True, False]),
            "layers.1.w": torch.randn(300, 1000), "scale": torch.tensor(2.5, dtype=torch.float64), "empty": torch.zeros(0, 3), "count": torch.tensor(7)}


class ExchangeTest(ForeignFiles):
    def run_it(self, *command, ok=True):
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=120, cwd=self.folder)
        self.assertEqual(done.returncode == 0, ok, done.stdout + done.stderr)
        return done

    def convert(self, *words, ok=True):
        done = self.run_it(TRAINER, "convert", *words, ok=ok)
        return json.loads(done.stdout) if ok else done.stderr

    def imported(self, source, *options):
        target = self.folder / f"imported-{len(list(self.folder.iterdir()))}"
        report = json.loads(self.run_it(CLI, "-o", "json", "checkpoint", "import", source, target, *options).stdout)
        return pathlib.Path(report["path"]), report

    def stored(self, checkpoint):
        """The tensors of a checkpoint of one rank, by name, whose manifest knows them."""
        manifest = json.loads((checkpoint / "manifest.json").read_text())
        tensors = safetensors.torch.load_file(checkpoint / manifest["shards"][0]["file"])
        self.assertEqual(set(tensors) - set(manifest["tensors"]), set())
        return tensors, manifest

    def assert_same(self, found, wanted):
        self.assertEqual(sorted(found), sorted(wanted))
        for name, tensor in wanted.items():
            self.assertEqual((found[name].dtype, found[name].shape), (tensor.dtype, tensor.shape), name)
            self.assertEqual(hex_of(found[name]), hex_of(tensor), name)

    def test_there_and_back_through_every_format(self):
        torch.save(weights(), self.folder / "first.pt")
        checkpoint, report = self.imported(self.folder / "first.pt", "--step", 12)
        self.assertEqual(checkpoint.name, "step-000000000012")
        self.assertEqual(report["tensors"], len(weights()))
        self.assert_same(self.stored(checkpoint)[0], {f"model.{name}": tensor for name, tensor in weights().items()})
        targets = {"safetensors": "w.safetensors", "pt": "w.pt", "hf": "hf", "dcp": "dcp"}
        for name, target in targets.items():
            self.convert(checkpoint, self.folder / target, f"--format={name}", "--max-shard-bytes=600000")
            again, _ = self.imported(self.folder / target)
            self.assertEqual(self.stored(again)[0].keys(), self.stored(checkpoint)[0].keys(), name)
            self.assert_same(self.stored(again)[0], self.stored(checkpoint)[0])
        self.assert_same(safetensors.torch.load_file(self.folder / "w.safetensors"), weights())
        self.assert_same(torch.load(self.folder / "w.pt", weights_only=True), weights())

    def test_hugging_face_reads_what_is_exported_and_the_other_way_round(self):
        sizes = [torch.nn.Linear(64, 64) for _ in range(6)]
        model = torch.nn.Sequential(*sizes)
        (self.folder / "theirs").mkdir()
        huggingface_hub.save_torch_state_dict(model.state_dict(), self.folder / "theirs", max_shard_size="40KB")
        self.assertGreater(len(list((self.folder / "theirs").glob("*.safetensors"))), 1)
        checkpoint, _ = self.imported(self.folder / "theirs", "--format", "hf")
        self.assert_same(self.stored(checkpoint)[0], {f"model.{name}": tensor for name, tensor in model.state_dict().items()})
        self.convert(checkpoint, self.folder / "ours", "--format=hf", "--max-shard-bytes=40000")
        index = json.loads((self.folder / "ours/model.safetensors.index.json").read_text())
        self.assertEqual(index["metadata"]["total_size"], sum(t.nbytes for t in model.state_dict().values()))
        for file in set(index["weight_map"].values()):
            self.assertLess((self.folder / "ours" / file).stat().st_size, 42000)
        other = torch.nn.Sequential(*[torch.nn.Linear(64, 64) for _ in range(6)])
        huggingface_hub.load_torch_model(other, self.folder / "ours", strict=True)
        self.assert_same(other.state_dict(), model.state_dict())
        self.assertIn("there is a model already", self.convert(checkpoint, self.folder / "ours", "--format=hf", ok=False))
        self.convert(checkpoint, self.folder / "one", "--format=hf")
        self.assertEqual([path.name for path in (self.folder / "one").iterdir()], ["model.safetensors"])

    def test_two_ranks_of_torch_distributed_checkpoint(self):
        folder = self.folder / "dcp"
        environment = {**os.environ, "GLOO_SOCKET_IFNAME": "lo"}
        ranks = [subprocess.Popen([sys.executable, "-W", "ignore", "-c", TWO_RANKS, str(rank), str(folder)], stderr=subprocess.PIPE, env=environment) for rank in range(2)]
        for rank in ranks:
            self.addCleanup(rank.kill)
        for rank in ranks:
            _, said = rank.communicate(timeout=100)
            self.assertEqual(rank.returncode, 0, said)
        self.assertEqual(len(list(folder.glob("*.distcp"))), 2)
        checkpoint, report = self.imported(folder)
        self.assertEqual(report["from"], "dcp")
        full = torch.arange(35.).reshape(7, 5)
        wanted = {"model.w": full, "model.columns": full + 100, "model.b": torch.ones(3), "optim.w.exp_avg": full / 3, "optim.w.step": torch.tensor(4.)}
        self.assert_same(self.stored(checkpoint)[0], wanted)
        self.assertEqual(report["skipped"], ["optim.param_groups.0.lr: a pickled value"])
        # Their reader takes what is written here, flat and nested.
        self.convert(checkpoint, self.folder / "flat", "--format=dcp")
        state = {"w": torch.zeros(7, 5), "columns": torch.zeros(7, 5), "b": torch.zeros(3)}
        dcp.load(state, checkpoint_id=self.folder / "flat")
        self.assert_same(state, {"w": full, "columns": full + 100, "b": torch.ones(3)})
        self.convert(checkpoint, self.folder / "nested", "--format=dcp", "--content=all")
        state = {"model": {"w": torch.zeros(7, 5)}, "optim": {"w.exp_avg": torch.zeros(7, 5)}}
        dcp.load(state, checkpoint_id=self.folder / "nested")
        self.assert_same({**state["model"], **state["optim"]}, {"w": full, "w.exp_avg": full / 3})
        dcp_to_torch_save(self.folder / "nested", self.folder / "nested.pt")
        self.assertEqual(hex_of(torch.load(self.folder / "nested.pt", weights_only=True)["model"]["columns"]), hex_of(full + 100))
        self.assertIn("there is a checkpoint already", self.convert(checkpoint, self.folder / "flat", "--format=dcp", ok=False))

    def test_what_two_ranks_of_deepspeed_have_saved(self):
        samples = pathlib.Path(__file__).parents[1] / "data/deepspeed"  # of the real package: make_samples.py there
        for stage in (1, 2, 3):
            checkpoint, report = self.imported(samples / f"zero{stage}")
            self.assertEqual(report["from"], "deepspeed")
            found, wanted = self.stored(checkpoint)[0], safetensors.torch.load_file(samples / f"zero{stage}.safetensors")
            self.assert_same({name: tensor for name, tensor in found.items() if not name.endswith(".step")}, wanted)
            self.assertEqual({name for name in found if name not in wanted}, {f"optim.{name}.step" for name in ("a.weight", "a.bias", "b.weight", "b.bias")})
            self.assertEqual(found["optim.b.bias.step"].item(), 3)
            found = self.tool("dump", samples / f"zero{stage}/step3")
            self.assertEqual(sorted(found), ["a.bias", "a.weight", "b.bias", "b.weight", "buf"])
            broken = self.folder / f"broken{stage}"
            shutil.copytree(samples / f"zero{stage}", broken)
            (broken / "latest.pointer").write_text("step3\n")
            (broken / "latest").unlink()
            self.assertEqual(self.imported(broken)[1]["tensors"], report["tensors"])
            next(broken.glob("step3/zero_pp_rank_1_*optim_states.pt")).unlink()
            self.assertIn("has the parts of 1 ranks; there were 2", self.convert(broken, self.folder / "x.pt", ok=False))

    def test_metadata_that_is_no_checkpoint_runs_nothing(self):
        class Evil:
            def __reduce__(self):
                return os.system, (f"touch {folder}/touched",)
        folder = self.folder / "dcp"
        dcp.save({"w": torch.ones(4)}, checkpoint_id=folder)
        good = (folder / ".metadata").read_bytes()
        cases = {"evil": (pickle.dumps(Evil()), "allowed: the Metadata of a checkpoint"), "dict": (pickle.dumps({"state_dict_metadata": {}}), "allowed: the Metadata"),
                 "short": (good[:-20], "pickle at byte"), "other_file": (good.replace(b"__0_0.distcp", b"/../../etc/p"), "is not one in a file of the folder"),
                 "none": (good.replace(b"__0_0.distcp", b"__9_9.distcp"), "__9_9.distcp")}
        for name, (text, problem) in cases.items():
            (folder / ".metadata").write_bytes(text)
            self.assertIn(problem, self.convert(folder, self.folder / "x.pt", ok=False), name)
        self.assertFalse((folder / "touched").exists())
        (folder / ".metadata").write_bytes(good)
        data = bytearray((folder / "__0_0.distcp").read_bytes())
        (folder / "__0_0.distcp").write_bytes(data[:len(data) // 2])
        self.assertIn("__0_0.distcp", self.convert(folder, self.folder / "x.pt", ok=False))

    def test_nested_dictionaries_names_and_dtypes(self):
        w = torch.randn(4, 4)
        torch.save({"model": {"module.w": w, "module.tied": w}, "ema": {"module.w": w + 1}, "epoch": 3, "optimizer": {"state": {"module.w": {"exp_avg": w * 2}}}}, self.folder / "run.pt")
        checkpoint, report = self.imported(self.folder / "run.pt", "--rename", r"module\.=")
        tensors, manifest = self.stored(checkpoint)
        self.assert_same(tensors, {"model.tied": w, "ema.w": w + 1, "optim.w.exp_avg": w * 2})
        self.assertEqual(manifest["tensors"]["model.w"], manifest["tensors"]["model.tied"])  # stored once
        self.assertEqual(report["skipped"], ["epoch: an integer"])
        self.convert(checkpoint, self.folder / "half.pt", "--dtype=bf16")
        half = torch.load(self.folder / "half.pt", weights_only=True)
        self.assert_same(half, {"w": (w + 1).bfloat16(), "tied": w.bfloat16()})  # the average of w
        self.assertIn("both become 'x'", self.convert(self.folder / "half.pt", self.folder / "x.pt", "--rename=^.*$=x", ok=False))
        self.assertIn("allowed: auto, athanor", self.convert(self.folder / "half.pt", self.folder / "x.pt", "--format=tf", ok=False))
        self.assertIn("is no ECMAScript expression", self.convert(self.folder / "half.pt", self.folder / "x.pt", "--rename=(=x", ok=False))
        self.assertIn("found neither manifest.json", self.convert(self.folder, self.folder / "x.pt", ok=False))
        self.assertFalse((self.folder / "x.pt").exists())

    def test_damage_in_a_checkpoint_is_found(self):
        torch.save(weights(), self.folder / "first.pt")
        checkpoint, _ = self.imported(self.folder / "first.pt")
        shard = next(checkpoint.glob("shard-*"))
        data = bytearray(shard.read_bytes())
        data[-5] ^= 1
        shard.write_bytes(data)
        self.assertIn("CRC32C", self.convert(checkpoint, self.folder / "x.safetensors", ok=False))
        self.assertFalse((self.folder / "x.safetensors").exists())

    def test_a_folder_is_a_source_of_pretrained_weights(self):
        torch.save(weights(), self.folder / "first.pt")
        for name in ("hf", "dcp"):
            self.convert(self.folder / "first.pt", self.folder / name, f"--format={name}", "--max-shard-bytes=600000")
            found = self.tool("dump", self.folder / name)
            self.assertEqual(sorted(found), sorted(weights()))
            self.assertAlmostEqual(found["layers.1.w"]["sum"], weights()["layers.1.w"].double().sum().item(), places=9)

    def test_the_index_of_a_folder_is_not_believed(self):
        torch.save(weights(), self.folder / "first.pt")
        self.convert(self.folder / "first.pt", self.folder / "hf", "--format=hf", "--max-shard-bytes=600000")
        index = self.folder / "hf/model.safetensors.index.json"
        good = json.loads(index.read_text())
        for change, problem in ((("scale", "../first.pt"), "is in no plain file"), (("scale", "model-00009-of-00009.safetensors"), "model-00009"),
                                (("other", good["weight_map"]["scale"]), "has no tensor 'other'")):
            index.write_text(json.dumps({**good, "weight_map": {**good["weight_map"], change[0]: change[1]}}))
            self.assertIn(problem, self.convert(self.folder / "hf", self.folder / "x.pt", ok=False))

if __name__ == "__main__":
    unittest.main(verbosity=2)
