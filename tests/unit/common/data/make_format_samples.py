"""Writes tests/data/formats: what NumPy, Pillow and gzip write, for the readers to read. Run with the tree's own Python (numpy, torch, pillow)."""
import gzip
import json
import pathlib
import struct

import numpy as np
import torch
from PIL import Image

OUT = pathlib.Path(__file__).parents[3] / "data" / "formats"
OUT.mkdir(exist_ok=True)

np.save(OUT / "f4.npy", np.arange(6, dtype="<f4").reshape(2, 3) / 4)
np.save(OUT / "fortran_i8.npy", np.asfortranarray(np.arange(24, dtype="<i8").reshape(2, 3, 4)))
np.save(OUT / "big_endian.npy", np.arange(3, dtype=">f4"))
np.save(OUT / "objects.npy", np.array([{"a": 1}], dtype=object))
np.savez(OUT / "stored.npz", x=np.eye(3), y=np.array([1, 2, 65535], dtype="u2"), flag=np.array(True))
np.savez_compressed(OUT / "deflated.npz", x=np.zeros((50, 4), dtype="f2"), y=np.arange(50))

images = (np.arange(3 * 4 * 5) % 256).astype("u1").reshape(3, 4, 5)
with gzip.GzipFile(OUT / "train-images-idx3-ubyte.gz", "wb", mtime=0) as f:
    f.write(struct.pack(">BBBBIII", 0, 0, 8, 3, 3, 4, 5) + images.tobytes())
(OUT / "train-labels-idx1-ubyte").write_bytes(struct.pack(">BBBBI", 0, 0, 8, 1, 3) + bytes([7, 0, 9]))

rows, columns = np.mgrid[0:24, 0:32]
smooth = np.stack([rows * 10, columns * 7, 255 - rows * 5], axis=2).astype("u1")
folder = OUT / "photos"
for name in ("ant", "bee"):
    (folder / name).mkdir(parents=True, exist_ok=True)
Image.fromarray(smooth).save(folder / "ant" / "1.png")
Image.fromarray(smooth).save(folder / "ant" / "2.jpg", quality=95)
Image.fromarray(smooth[:, :, 0]).save(folder / "bee" / "grey.JPEG", quality=95)
Image.fromarray(np.dstack([smooth, np.full((24, 32), 128, "u1")])).save(folder / "bee" / "alpha.png")

reference = {"jpeg": np.asarray(Image.open(folder / "ant" / "2.jpg")).transpose(2, 0, 1).tolist(),
             "resized": np.asarray(Image.fromarray(smooth).resize((12, 10), Image.BILINEAR)).transpose(2, 0, 1).tolist()}
(OUT / "reference.json").write_text(json.dumps(reference) + "\n")
