"""What the tests of files from elsewhere share: the tool that reads them, and tensors as hex digits."""

import json
import os
import pathlib
import subprocess
import tempfile
import unittest

import torch

TOOL = pathlib.Path(os.environ["ATHANOR_BUILD"]) / "tests/integration/library_tool"


def hex_of(tensor):
    if tensor.numel() == 0:
        return ""
    plain = tensor.resolve_conj().resolve_neg().detach().clone(memory_format=torch.contiguous_format)
    return plain.reshape(-1).view(torch.uint8).numpy().tobytes().hex()


class ForeignFiles(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="ath-")
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def tool(self, *args):
        done = subprocess.run([str(TOOL), *map(str, args)], capture_output=True, text=True, timeout=120, cwd=self.folder)
        self.assertEqual(done.returncode, 0, done.stderr)
        return json.loads(done.stdout)

    def read(self, paths):
        found = self.tool("read", *paths)
        return {pathlib.Path(path).name: value for path, value in found.items()}
