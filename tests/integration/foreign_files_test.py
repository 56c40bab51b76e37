"""Files as other programs write them, read as those programs read them: torch.save, safetensors, NumPy, spreadsheets."""

import itertools
import json
import pathlib
import struct
import subprocess
import unittest
import zipfile

import numpy as np
import safetensors.torch
import torch

from foreign_files import TOOL, ForeignFiles, hex_of


class Mine(torch.Tensor):
    """A subclass, of which only the data counts."""


class TorchSaveTest(ForeignFiles):
    def write_big_endian(self, source, target, width):
        """What torch.save writes on a machine of the other byte order."""
        archive = zipfile.ZipFile(source)
        with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as out:
            for entry in archive.infolist():
                data = archive.read(entry)
                if entry.filename.endswith("byteorder"):
                    data = b"big"
                elif "/data/" in entry.filename:
                    data = b"".join(data[k:k + width][::-1] for k in range(0, len(data), width))
                out.writestr(entry.filename, data)

    def test_what_torch_load_gives(self):
        w = torch.arange(6, dtype=torch.float32).reshape(2, 3) + 0.5
        c = torch.complex(torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0]))
        with_tag, parameter = w.clone(), torch.nn.Parameter(w.clone())
        with_tag.tag = parameter.tag = "x"
        cases = {"conj": c.conj(), "neg": c.conj().imag, "neg_view": c.conj().imag[1:], "conj_t": torch.stack([c, c]).mH, "attribute": with_tag,
                 "parameter": parameter, "subclass": w.as_subclass(Mine), "buffer": torch.nn.Buffer(w), "channels": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)}
        raw = torch.arange(32, dtype=torch.uint8)
        for dtype in (torch.uint16, torch.uint32, torch.uint64, torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz,
                      torch.float8_e8m0fnu, torch.float4_e2m1fn_x2, torch.complex64, torch.complex128, torch.int16, torch.bfloat16):
            cases[str(dtype).removeprefix("torch.")] = raw.view(dtype)
        paths = []
        for name, tensor in cases.items():
            for protocol in (2, 5):
                paths.append(self.folder / f"{name}.{protocol}.pt")
                torch.save({"w": tensor}, paths[-1], pickle_protocol=protocol)
        found = self.read(paths)
        for path in paths:
            name = path.name.split(".")[0]
            self.assertNotIn("error", found[path.name], path.name)
            self.assertEqual(found[path.name]["tensors"]["w"]["shape"], list(cases[name].shape), path.name)
            self.assertEqual(found[path.name]["tensors"]["w"]["bytes"], hex_of(cases[name].as_subclass(torch.Tensor)), path.name)

    def test_the_other_byte_order(self):
        cases = {"float": (torch.randn(2, 3), 4), "double": (torch.randn(3, dtype=torch.float64), 8), "half": (torch.randn(5).half(), 2),
                 "bfloat16": (torch.randn(5).bfloat16(), 2), "long": (torch.arange(-3, 3), 8), "bool": (torch.tensor([True, False]), 1),
                 "complex": (torch.randn(3, dtype=torch.complex128), 8), "uint16": (torch.arange(9).to(torch.uint16), 2),
                 "view": (torch.randn(4, 6)[1:3, ::2], 4)}
        for name, (tensor, width) in cases.items():
            torch.save({"w": tensor, "again": tensor[:1]}, self.folder / "little.pt")
            self.write_big_endian(self.folder / "little.pt", self.folder / f"{name}.pt", width)
        found = self.read(self.folder / f"{name}.pt" for name in cases)
        for name, (tensor, _) in cases.items():
            self.assertEqual(found[f"{name}.pt"]["tensors"]["w"]["bytes"], hex_of(tensor), name)
            self.assertEqual(found[f"{name}.pt"]["tensors"]["again"]["bytes"], hex_of(tensor[:1]), name)

    def test_what_stands_beside_tensors_is_listed(self):
        import collections
        w = torch.ones(2)
        beside = {"rng": np.random.default_rng(1).bit_generator.state, "big": 1 << 63, "huge": -(1 << 200), "set": {1, 2}, "frozen": frozenset([3]),
                  "bytes": bytearray(b"ab"), "array": np.arange(3.0), "scalar": np.float32(2), "none": None, "type": torch.float32, "device": torch.device("cpu"),
                  "size": torch.Size([1]), "list": [w], "path": pathlib.PurePosixPath("/x"), "default": collections.defaultdict(int, {"n": 1})}
        for protocol in (2, 3, 4, 5):
            torch.save({"w": w, **beside, "inner": collections.defaultdict(list, {"v": w})}, self.folder / f"{protocol}.pt", pickle_protocol=protocol)
        for name, found in self.read(self.folder / f"{p}.pt" for p in (2, 3, 4, 5)).items():
            self.assertNotIn("error", found, name)
            self.assertEqual(set(found["tensors"]), {"w", "inner.v"}, name)
            for key in beside:
                self.assertTrue(any(text.startswith(key) for text in found["skipped"]), (name, key, found["skipped"]))

    def test_a_storage_without_a_type_is_seen_as_several(self):
        storage = torch.arange(16, dtype=torch.uint8).untyped_storage()
        dtypes = (torch.uint16, torch.float8_e4m3fn, torch.float8_e5m2, torch.uint64)
        state = {str(d): torch.empty(0, dtype=d).set_(storage) for d in dtypes} | {"half": torch.zeros(3, dtype=torch.complex32)}
        torch.save(state, self.folder / "views.pt")
        found = self.read([self.folder / "views.pt"])["views.pt"]
        self.assertEqual({name: tensor["bytes"] for name, tensor in found["tensors"].items()}, {name: hex_of(tensor) for name, tensor in state.items()})

    def test_names_that_become_one_are_refused(self):
        torch.save({"a": {"b": torch.ones(1)}, "a.b": torch.zeros(1)}, self.folder / "two.pt")
        torch.save({"w": torch.ones(2), "bits": torch.zeros(2, dtype=torch.uint8).view(torch.bits8)}, self.folder / "bits.pt")
        found = self.read(self.folder / name for name in ("two.pt", "bits.pt"))
        self.assertIn("two tensors have the name 'a.b'", found["two.pt"]["error"])
        self.assertIn("tensor 'bits' is of the type torch.bits8", found["bits.pt"]["error"])

    def test_other_files_of_torch_are_named(self):
        torch.save({"w": torch.ones(2)}, self.folder / "legacy2.pt", _use_new_zipfile_serialization=False)
        torch.save({"w": torch.ones(2)}, self.folder / "legacy4.pt", _use_new_zipfile_serialization=False, pickle_protocol=4)
        torch.save(torch.nn.Linear(2, 2), self.folder / "module.pt")
        torch.save(torch.ones(2), self.folder / "tensor.pt")
        torch.save({"w": torch.ones(2).to_sparse()}, self.folder / "sparse.pt")
        wanted = {"legacy2.pt": "old format of torch.save", "legacy4.pt": "old format of torch.save", "module.pt": "Linear; allowed: a dictionary",
                  "tensor.pt": "allowed: a dictionary", "sparse.pt": "_rebuild_sparse_tensor"}
        found = self.read(self.folder / name for name in wanted)
        for name, text in wanted.items():
            self.assertIn(text, found[name]["error"])
            self.assertIn(name, found[name]["error"])

    def test_what_is_written_is_loaded_with_shared_storage(self):
        base = torch.arange(24, dtype=torch.float32).reshape(4, 6)
        c = torch.complex(torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0]))
        raw = torch.arange(16, dtype=torch.uint8)
        state = {"tied": base, "weight": base, "conj": c.conj(), "neg": c.clone().conj().imag} | {str(d): raw.clone().view(d) for d in (
            torch.uint16, torch.uint32, torch.uint64, torch.float8_e4m3fn, torch.float8_e8m0fnu, torch.complex64, torch.complex128)}
        torch.save(state, self.folder / "in.pt")
        self.tool("convert", self.folder / "in.pt", self.folder / "out.pt")
        loaded = torch.load(self.folder / "out.pt", weights_only=True)
        self.assertEqual(set(loaded), set(state))
        for name, tensor in state.items():
            self.assertEqual(loaded[name].dtype, tensor.dtype, name)
            self.assertEqual(hex_of(loaded[name]), hex_of(tensor), name)
        self.assertEqual(loaded["tied"].data_ptr(), loaded["weight"].data_ptr())
        self.assertLess((self.folder / "out.pt").stat().st_size, (self.folder / "in.pt").stat().st_size + 2000)


class PretrainedTest(ForeignFiles):
    def train(self, **config):
        base = {"seed": 1, "workspace_root": str(self.folder / "runs"), "optim": {"type": "sgd", "lr": 0.5}, "evaluate": {"interval": 1}, "dataloader": {"batch_size": 32}}
        return self.tool("train", json.dumps({**base, **config}))

    def test_names_that_wrappers_lengthened_and_rules_for_others(self):
        first = self.train(steps=20, experiment="first")
        self.tool("export", pathlib.Path(first["dir"]) / "checkpoints/latest", self.folder / "good.pt")
        weights = torch.load(self.folder / "good.pt", weights_only=True)
        other = {name: tensor + 1 for name, tensor in weights.items()}
        files = {"compiled": {f"_orig_mod.{k}": v for k, v in weights.items()}, "parallel": {f"module._orig_mod.{k}": v for k, v in weights.items()},
                 "lightning": {"state_dict": {f"model.{k}": v for k, v in weights.items()}, "epoch": 3, "callbacks": {"seen": {1, 2}}},
                 "tutorial": {"epoch": 1, "model_state_dict": weights, "optimizer_state_dict": {"state": {0: {"step": torch.ones(1)}}, "param_groups": []}},
                 "averaged": {"state_dict": other, "state_dict_ema": weights},
                 "renamed": {f"backbone.layer_{k}": v for k, v in weights.items()}}
        for name, state in files.items():
            torch.save(state, self.folder / f"{name}.pt")
            rules = [{"pattern": "^backbone\\.layer_(\\d+)", "replacement": "$1"}] if name == "renamed" else []
            again = self.train(steps=1, optim={"type": "sgd", "lr": 0}, experiment=name, pretrained=str(self.folder / f"{name}.pt"), pretrained_key_mapping=rules)
            self.assertAlmostEqual(again["metrics"]["val.loss"], first["metrics"]["val.loss"], places=6, msg=name)
            if name == "lightning":
                self.assertTrue(any("callbacks.seen: a call of __builtin__.set" in note for note in again["notes"]), again["notes"])
        config = {"steps": 1, "optim": {"type": "sgd", "lr": 0}, "pretrained": str(self.folder / "renamed.pt")}
        done = subprocess.run([str(TOOL), "train", json.dumps(config)], capture_output=True, text=True, timeout=120, cwd=self.folder)
        self.assertIn("missing in the file: 0.weight", done.stderr)
        done = subprocess.run([str(TOOL), "train", json.dumps({**config, "pretrained_key_mapping": [{"pattern": "("}]})], capture_output=True, text=True, timeout=120)
        self.assertIn('pretrained_key_mapping[0].pattern: "(" is no regular expression', done.stderr)


    def test_tied_weights_stay_tied_in_exports(self):
        weight = torch.randn(4, 3)
        torch.save({"embedding": weight, "head": weight, "bias": torch.randn(3)}, self.folder / "in.pt")
        for dtype in (None, "bf16", "fp32", "fp64"):
            name = f"{dtype}.pt"
            self.tool("export", self.folder / "in.pt", self.folder / name, *([dtype] if dtype else []))
            loaded = torch.load(self.folder / name, weights_only=True)
            expected = weight.to({None: torch.float32, "bf16": torch.bfloat16, "fp32": torch.float32, "fp64": torch.float64}[dtype])
            self.assertTrue(torch.equal(loaded["head"], expected) and torch.equal(loaded["embedding"], expected), name)
            self.assertEqual(loaded["head"].data_ptr(), loaded["embedding"].data_ptr(), name)
            self.tool("export", self.folder / "in.pt", self.folder / f"{dtype}.safetensors", *([dtype] if dtype else []))
            self.assertEqual(set(safetensors.torch.load_file(self.folder / f"{dtype}.safetensors")), set(loaded))


class SafetensorsTest(ForeignFiles):
    # Artefacts of the reference's JSON library (a structure as a list, an enumeration as a map), and shapes that LibTorch cannot make.
    DEVIATIONS = {"tensor as list", "dtype as map", "zero beside huge", "65 dims", "deep 126", "F6_E2M3", "F6_E3M2"}

    def headers(self):
        tensor = '{"dtype":"F32","shape":[2],"data_offsets":[0,8]}'
        yield from {"plain": f'{{"a":{tensor}}}', "empty": "{}", "none": "", "space before": f' \n{{"a":{tensor}}}', "space behind": f'{{"a":{tensor}}} \n\t',
                    "mark": f'\ufeff{{"a":{tensor}}}', "zeros behind": f'{{"a":{tensor}}}\0\0', "junk": f'{{"a":{tensor}}}x', "two": f'{{"a":{tensor}}}{{}}',
                    "list": "[]", "null": "null", "text": '"a"', "number": "1", "comma": f'{{"a":{tensor},}}', "comment": f'{{/**/"a":{tensor}}}',
                    "tensor twice": f'{{"a":{tensor},"a":{tensor}}}', "escaped twice": f'{{"a":{tensor},"\\u0061":{tensor}}}',
                    "incomplete, then whole": f'{{"a":{{"dtype":"F32","shape":[2]}},"a":{tensor}}}',
                    "unknown dtype, then whole": f'{{"a":{tensor.replace("F32", "F33")},"a":{tensor}}}', "one offset, then whole": f'{{"a":{tensor.replace("0,8", "8")},"a":{tensor}}}',
                    "other bytes, then whole": f'{{"a":{tensor.replace("0,8", "3,9000")},"a":{tensor}}}', "empty, then whole": f'{{"a":{{}},"a":{tensor}}}',
                    "metadata twice": f'{{"__metadata__":{{}},"__metadata__":{{}},"a":{tensor}}}',
                    "metadata null twice": f'{{"__metadata__":null,"__metadata__":{{}},"a":{tensor}}}',
                    "metadata behind": f'{{"a":{tensor},"__metadata__":{{"k":"v"}}}}', "escaped metadata": f'{{"\\u005f_metadata__":{{"k":"v"}},"a":{tensor}}}',
                    "tensor as list": '{"a":["F32",[2],[0,8]]}', "dtype as map": f'{{"a":{tensor}}}'.replace('"F32"', '{"F32":null}'),
                    "control": f'{{"a\n":{tensor}}}', "surrogate": f'{{"\\ud800":{tensor}}}', "pair": f'{{"\\ud83d\\ude00":{tensor}}}', "no name": f'{{"":{tensor}}}',
                    "zero beside huge": '{"e":{"dtype":"F32","shape":[0,4294967296,4294967296],"data_offsets":[0,0]}}',
                    "huge": '{"e":{"dtype":"F32","shape":[4294967296,4294967296,0],"data_offsets":[0,0]}}',
                    "64 dims": tensor.join(['{"a":', "}"]).replace("[2]", "[2" + ",1" * 63 + "]"), "65 dims": tensor.join(['{"a":', "}"]).replace("[2]", "[2" + ",1" * 64 + "]"),
                    "F4 odd": '{"a":{"dtype":"F4","shape":[3],"data_offsets":[0,2]}}', "F4": '{"a":{"dtype":"F4","shape":[2,8],"data_offsets":[0,8]}}'}.items()
        for value in ("null", "{}", '{"k":"v"}', '{"k":null}', '{"k":1}', '{"k":[]}', '{"k":{}}', "[]", '"x"', "1", "true", '{"k":"v","k":"w"}', '{"":""}', '{"k":"\\u0000"}'):
            yield f"metadata {value}", f'{{"__metadata__":{value},"a":{tensor}}}'
        fields = {"dtype": '"F32"', "shape": "[2]", "data_offsets": "[0,8]"}
        for field, value in fields.items():
            yield f"{field} twice", f'{{"a":{tensor[:-1]},"{field}":{value}}}}}'
            yield f"{field} null", f'{{"a":{tensor}}}'.replace(value, "null", 1)
            yield f"{field} missing", '{"a":{%s}}' % ",".join(f'"{k}":{v}' for k, v in fields.items() if k != field)
            yield f"{field} escaped", f'{{"a":{tensor}}}'.replace(f'"{field}"', f'"\\u{ord(field[0]):04x}{field[1:]}"')
        for value in ("1", "null", "{}", '"x"', "[[[]]]", '{"dtype":"F16"}', '1,"extra":2', '[{"shape":[1]},2.5,-1,true]'):
            yield f"extra {value}", f'{{"a":{tensor[:-1]},"extra":{value}}}}}'
        for value in ("2.0", "2e0", "-2", "-0", "0.5", '"2"', "null", "true", "2,1", "02", "+2", "1e400", "18446744073709551615", "18446744073709551616", "9223372036854775808", "[2]"):
            yield f"shape {value}", f'{{"a":{tensor}}}'.replace("[2]", f"[{value}]")
        for value in ("0,8,8", "0", "", "0,8.0", "-0,8", "-1,8", "8,0", "4,8", "0,4", "0,16", '"0","8"', "0,8e0", "0,18446744073709551615"):
            yield f"offsets {value}", f'{{"a":{tensor}}}'.replace("[0,8]", f"[{value}]")
        for (a, b), (c, d) in (((0, 4), (4, 8)), ((4, 8), (0, 4)), ((0, 8), (0, 8)), ((0, 8), (4, 8)), ((0, 2), (4, 8)), ((0, 8), (8, 8)), ((0, 8), (0, 0)), ((0, 8), (4, 4))):
            yield f"two {a} {b} {c} {d}", '{"a":{"dtype":"U8","shape":[%d],"data_offsets":[%d,%d]},"b":{"dtype":"U8","shape":[%d],"data_offsets":[%d,%d]}}' % (b - a, a, b, d - c, c, d)
        for dtype, size in (("F64", 8), ("F32", 4), ("F16", 2), ("BF16", 2), ("I64", 8), ("I32", 4), ("I16", 2), ("I8", 1), ("U8", 1), ("U16", 2), ("U32", 4), ("U64", 8), ("BOOL", 1),
                            ("F8_E4M3", 1), ("F8_E5M2", 1), ("F8_E4M3FNUZ", 1), ("F8_E5M2FNUZ", 1), ("F8_E8M0", 1), ("C64", 8), ("C128", 8), ("F128", 8), ("f32", 4), ("", 1)):
            yield f"dtype {dtype}", '{"a":{"dtype":"%s","shape":[%d],"data_offsets":[0,8]}}' % (dtype, 8 // size)
        for dtype in ("F6_E2M3", "F6_E3M2"):
            yield dtype, '{"a":{"dtype":"%s","shape":[8],"data_offsets":[0,6]}}' % dtype
        for depth in (100, 120, 126, 130, 250):
            yield f"deep {depth}", f'{{"a":{tensor[:-1]},"x":{"[" * depth}{"]" * depth}}}}}'

    def test_headers_are_taken_as_the_reference_takes_them(self):
        reference, paths = {}, []
        for i, (name, header) in enumerate(self.headers()):
            text = header.encode("utf-8", "surrogatepass")
            for size in {0, 6, 8}:
                path = self.folder / f"{i}-{size}.safetensors"
                path.write_bytes(struct.pack("<Q", len(text)) + text + b"\1" * size)
                paths.append(path)
                try:
                    with safetensors.safe_open(path, "pt") as file:
                        keys = file.keys()
                        reference[path.name] = (name, {k: hex_of(file.get_tensor(k)) for k in keys} if "F6_" not in header else {})
                except safetensors.SafetensorError:
                    reference[path.name] = (name, None)
        differ = set()
        for path, found in self.read(paths).items():
            name, tensors = reference[path]
            ours = {k: v["bytes"] for k, v in found["tensors"].items()} if "tensors" in found else None
            if ours != tensors:
                differ.add(name)
            if ours is None:
                self.assertIn(path, found["error"])
        self.assertEqual(differ - self.DEVIATIONS, set())

    def test_every_byte_of_a_bool_but_zero_is_true(self):
        header = b'{"a":{"dtype":"BOOL","shape":[4],"data_offsets":[0,4]}}'
        path = self.folder / "bools.safetensors"
        path.write_bytes(struct.pack("<Q", len(header)) + header + b"\0\1\2\xff")
        expected = hex_of(safetensors.torch.load_file(path)["a"])
        self.assertEqual((expected, self.read([path])[path.name]["tensors"]["a"]["bytes"]), ("00010101", "00010101"))

    def test_what_is_written_is_taken_by_the_reference(self):
        from safetensors.torch import load_file
        raw = torch.arange(16, dtype=torch.uint8)
        state = {str(d): raw.clone().view(d) for d in (torch.uint16, torch.uint32, torch.uint64, torch.float8_e4m3fnuz, torch.complex64)}
        c = torch.complex(torch.tensor([1.0, 2.0]), torch.tensor([3.0, 4.0]))
        state |= {"conj": c.conj(), "neg": c.clone().conj().imag}
        torch.save(state, self.folder / "in.pt")
        self.tool("convert", self.folder / "in.pt", self.folder / "out.safetensors")
        loaded = load_file(self.folder / "out.safetensors")
        for name, tensor in state.items():
            self.assertEqual(hex_of(loaded[name]), hex_of(tensor), name)


class ArraysTest(ForeignFiles):
    def test_arrays_of_every_kind(self):
        arrays = {}
        for kind, order in itertools.product(("f2", "f4", "f8", "i2", "i4", "i8", "u2", "u4", "u8", "c8", "c16"), "<>"):
            arrays[f"{'big' if order == '>' else 'little'}-{kind}"] = (np.arange(-3, 3) if kind[0] in "fic" else np.arange(6)).astype(order + kind).reshape(2, 3)
        arrays |= {f"{kind}": np.arange(3).astype(kind) for kind in ("i1", "u1", "b1")}
        arrays |= {"scalar": np.array(2.5), "empty": np.zeros((0, 3)), "fortran": np.asfortranarray(np.arange(24.0).reshape(2, 3, 4)), "sliced": np.arange(10)[::3]}
        for name, array in arrays.items():
            for version in ((1, 0), (2, 0), (3, 0)):
                with open(self.folder / f"{name}-{version[0]}.npy", "wb") as file:
                    np.lib.format.write_array(file, array, version=version)
        found = self.read(self.folder.glob("*.npy"))
        self.assertEqual(len(found), 3 * len(arrays))
        wider = {"u2": "i4", "u4": "i8", "u8": "i8"}
        for name, value in found.items():
            array = arrays[name.rsplit("-", 1)[0]]
            self.assertNotIn("error", value, name)
            kind = array.dtype.str[1:]
            native = np.ascontiguousarray(array).astype("<" + wider.get(kind, kind))
            self.assertEqual((value["tensors"]["array"]["shape"], value["tensors"]["array"]["bytes"]), (list(array.shape), native.tobytes().hex()), name)

    def test_headers_of_other_writers(self):
        data = struct.pack("<3f", 1, 2, 3)
        good = {"any order": "{'descr': '|f4', 'fortran_order': False, 'shape': (3,)}", "native": "{'descr': '=f4', 'fortran_order': False, 'shape': (3,)}",
                "python2": "{'descr': '<f4', 'fortran_order': False, 'shape': (3L,), }", "spaces": "{ 'descr' : '<f4' , 'fortran_order' :False,'shape':( 3 ,) }  ",
                "quotes": '{"descr": "<f4", "fortran_order": False, "shape": (3,)}', "order": "{'shape': (3,), 'fortran_order': True, 'descr': '<f4'}",
                "unicode": "{u'descr': u'<f4', u'fortran_order': False, u'shape': (3,)}", "bare": "{'descr': 'f4', 'fortran_order': False, 'shape': (3,)}",
                "long": "{'descr': '<f4', 'fortran_order': False, 'shape': (3,), }" + " " * 500}
        bad = {"struct": ("{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (3,)}", "structured"), "object": ("{'descr': '|O', 'fortran_order': False, 'shape': (3,)}", '"|O"'),
               "text": ("{'descr': '<U1', 'fortran_order': False, 'shape': (3,)}", '"<U1"'), "extended": ("{'descr': '<f16', 'fortran_order': False, 'shape': (3,)}", '"<f16"'),
               "behind": ("{'descr': '<f4', 'fortran_order': False, 'shape': (3,)} x", "goes on behind the dictionary"),
               "missing": ("{'descr': '<f4', 'shape': (3,)}", "no 'fortran_order'"), "more": ("{'descr': '<f4', 'fortran_order': False, 'shape': (3,), 'x': 1}", "'x'"),
               "negative": ("{'descr': '<f4', 'fortran_order': False, 'shape': (-3,)}", "shape"), "short": ("{'descr': '<f4', 'fortran_order': False, 'shape': (4,)}", "12 bytes of data")}
        for name, header in [*good.items(), *((name, header) for name, (header, _) in bad.items())]:
            text = header.encode() + b"\n"
            (self.folder / f"{name}.npy").write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data)
        np.save(self.folder / "too_large.npy", np.array([1, 1 << 63], dtype=np.uint64))
        bad["too_large"] = (None, "element 1: found 9223372036854775808")
        types = ["half", "single", "double", "float", "float16", "bool", "bool_", "int", "int_", "intp", "byte", "ubyte", "short", "ushort", "intc", "uintc", "uint", "ulong",
                 "longlong", "uint32", "uint64", "complex", "csingle", "complex128", "?", "b", "B", "h", "H", "i", "I", "l", "L", "q", "Q", "p", "P", "e", "f", "d", "F", "D",
                 ">d", "<f", "=e", "|f", ">?", ">q", "<float32", "=int", "Float32", "f3", "l8", "d8", "F8", "<", ""]
        for at, name in enumerate(types):
            text = repr({"descr": name, "fortran_order": False, "shape": (2,)}).encode() + b"\n"
            (self.folder / f"type{at}.npy").write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + b"\1\0\0\0\1\0\0\0" * 4 + b"more")
        found = self.read(self.folder.glob("*.npy"))
        wider = {"u2": "i4", "u4": "i8", "u8": "i8"}
        for at, name in enumerate(types):
            value = found[f"type{at}.npy"]
            try:
                array = np.load(self.folder / f"type{at}.npy")
            except (ValueError, TypeError):
                self.assertIn("found dtype", value.get("error", ""), name)
                continue
            self.assertNotIn("error", value, name)
            kind = array.dtype.str[1:]
            self.assertEqual(value["tensors"]["array"]["bytes"], array.astype("<" + wider.get(kind, kind)).tobytes().hex(), name)
        for name in good:
            self.assertEqual(found[f"{name}.npy"].get("tensors", found[f"{name}.npy"]), {"array": {"dtype": "Float", "shape": [3], "bytes": data.hex()}}, name)
        for name, (_, problem) in bad.items():
            self.assertIn(problem, found[f"{name}.npy"]["error"])


class TablesTest(ForeignFiles):
    def test_tables_as_spreadsheets_write_them(self):
        good = {"plain": "1.5,2,3\n3,4,5\n", "crlf": "1.5,2,3\r\n3,4,5\r\n", "cr": "1.5,2,3\r3,4,5\r", "no_end": "1.5,2,3\n3,4,5", "mark": "\ufeff1.5,2,3\n3,4,5\n",
                "plus": "+1.5,+2,+3\n3,4,5\n", "quoted": '"1.5","2","3"\n"3","4","5"\n', "some_quoted": '1.5,"2",3\n3,4,"5"\n', "blanks": " 1.5 ,\t2, 3\n3 , 4,5 \n",
                "blank_quoted": ' "1.5", "2" ,"3"\n3,4,5\n', "exponents": "15E-1,2e+00,.3e1\n3.,4.0,+5\n", "empty_lines": "\n1.5,2,3\n\n  \n3,4,5\n\n\n",
                "mark_header": "\ufeffx,y,class\n1.5,2,3\n3,4,5\n", "quoted_header": '"x","y","class"\n1.5,2,3\n3,4,5\n', "broken_header": '"x\ny",y,class\n1.5,2,3\n3,4,5\n'}
        bad = {"names": ("x,y,class\n1,2,3\n", "1: column 1: found \"x\"; allowed: a number (a line of names?"), "missing": ("1,2,3\n1,,3\n", "2: column 2: found \"\""),
               "nan": ("1,NaN,3\n", "found \"NaN\""), "na": ("1,NA,3\n", "found \"NA\""), "infinite": ("1,-inf,3\n", "found \"-inf\""), "thousands": ('1,"1,234",3\n', "found \"1,234\""),
               "semicolons": ("1;2;3\n", "delimited by ';'"), "tabs": ("1\t2\t3\n", "delimited by tabs"), "trailing": ("1,2,3\n1,2,3,\n", "2: found 4 columns; allowed: 3"),
               "open": ('1,2,3\n1,"2,3\n4,5,6\n', "2: a quote is not closed"), "fraction": ("1,2,3.5\n", "a whole number"), "hex": ("1,0x10,3\n", "found \"0x10\""),
               "utf16": (None, "UTF-16"), "comment": ("# x y\n1,2,3\n", "found 1 column"), "large": ("1e39,2,3\n", "found \"1e39\""), "two_signs": ("+-1,2,3\n", "found \"+-1\"")}
        for name, text in [*good.items(), *((name, text) for name, (text, _) in bad.items() if text is not None)]:
            (self.folder / f"{name}.csv").write_bytes(text.encode())
        (self.folder / "utf16.csv").write_bytes("1,2,3\n".encode("utf-16"))
        (self.folder / "exact.csv").write_bytes(b"1e-400,9007199254740993\n2,-9223372036854775808\n")
        found = self.read(self.folder.glob("*.csv"))
        features, target = np.array([[1.5, 2], [3, 4]], "<f4").tobytes().hex(), np.array([3, 5], "<i8").tobytes().hex()
        for name in good:
            self.assertNotIn("error", found[f"{name}.csv"], name)
            tensors = found[f"{name}.csv"]["tensors"]
            self.assertEqual((tensors["features"]["bytes"], tensors["target"]["bytes"]), (features, target), name)
            if name in ("mark_header", "quoted_header"):
                self.assertEqual(found[f"{name}.csv"]["columns"], ["x", "y", "class"])
        for name, (_, problem) in bad.items():
            self.assertIn(problem, found[f"{name}.csv"]["error"])
            self.assertIn(f"{name}.csv", found[f"{name}.csv"]["error"])
        self.assertEqual(found["exact.csv"]["tensors"]["target"]["bytes"], np.array([9007199254740993, -(1 << 63)], "<i8").tobytes().hex())

    def test_lines_of_json(self):
        exact = [9007199254740993, 9007199254740992, -9223372036854775808, 9223372036854775807]
        cases = {"exact": [json.dumps({"input": 1, "target": t}) for t in exact], "nan": [json.dumps({"input": float("nan"), "target": 1})],
                 "beyond": [json.dumps({"input": 1, "target": 1 << 63})], "far": [json.dumps({"input": 1, "target": 1 << 70})],
                 "floats": [json.dumps({"input": 1 << 70, "target": 1e20}), json.dumps({"input": 0, "target": 0.5})], "null": [json.dumps({"input": None, "target": 1})],
                 "cut": ['{"input": 1, "tar']}
        for name, lines in cases.items():
            (self.folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
        (self.folder / "mark.jsonl").write_text('\ufeff{"input": 1, "target": 2}\r\n')
        (self.folder / "utf16.jsonl").write_text('{"input": 1, "target": 2}\n', encoding="utf-16")
        found = self.read(self.folder.glob("*.jsonl"))
        self.assertEqual(found["exact.jsonl"]["tensors"]["target"]["bytes"], np.array(exact, "<i8").tobytes().hex())
        self.assertEqual(found["mark.jsonl"]["tensors"]["target"]["bytes"], np.array([2], "<i8").tobytes().hex())
        self.assertEqual(found["floats.jsonl"]["tensors"]["target"]["bytes"], np.array([1e20, 0.5], "<f4").tobytes().hex())
        for name, problem in {"nan": ":1: found no JSON object: not JSON: NaN, which", "beyond": "beyond 64 bits", "far": "beyond 64 bits", "null": "no number", "cut": ":1: ", "utf16": "UTF-16"}.items():
            self.assertIn(problem, found[f"{name}.jsonl"]["error"])

if __name__ == "__main__":
    unittest.main(verbosity=2)
