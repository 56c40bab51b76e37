"""Images of every kind that is read, compared with Pillow pixel by pixel."""

import io
import os
import random
import struct
import unittest
import warnings
import zlib

import numpy as np

from foreign_bitmaps import bitmap
from foreign_files import ForeignFiles

try:
    from PIL import Image
except ImportError:  # comes with TensorBoard
    Image = None


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width, height, depth, colour, raw, extra=(), interlaced=0):
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced)) + b"".join(chunk(*e) for e in extra)
            + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b""))


def packed(values, depth):
    """A row of samples as PNG packs them."""
    if depth >= 8:
        return b"".join(int(v).to_bytes(depth // 8, "big") for v in values)
    bits = "".join(format(int(v), f"0{depth}b") for v in values)
    bits += "0" * (-len(bits) % 8)
    return bytes(int(bits[i:i + 8], 2) for i in range(0, len(bits), 8))


def filtered(row, before, width, kind):
    """A row as one of the five filters of PNG leaves it."""
    out = bytearray([kind])
    for i, value in enumerate(row):
        left, above, corner = row[i - width] if i >= width else 0, before[i], before[i - width] if i >= width else 0
        near = [abs(above - corner), abs(left - corner), abs(left + above - 2 * corner)]
        paeth = (left, above, corner)[near.index(min(near))]
        out.append((value - (0, left, above, (left + above) // 2, paeth)[kind]) % 256)
    return bytes(out)


# Where each of Adam7's passes begins, and its steps: x, y.
ADAM7 = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]


@unittest.skipIf(Image is None, "needs Pillow")
class ImagesTest(ForeignFiles):
    def setUp(self):
        super().setUp()
        rows, columns = np.mgrid[0:32, 0:48]
        self.pixels = np.stack([columns * 5, rows * 7, np.full_like(rows, 99)], axis=2).astype("u1")
        self.image = Image.fromarray(self.pixels)
        self.expected = {}

    def add(self, name, data, within=0, expected=None):
        """An image file, to be read as Pillow reads it."""
        (self.folder / name).write_bytes(data)
        self.expected[name] = (np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int) if expected is None else expected, within)

    def encoded(self, image, kind, **options):
        out = io.BytesIO()
        image.save(out, kind, **options)
        return out.getvalue()

    def check(self):
        found = self.read(self.folder / name for name in self.expected)
        for name, (expected, within) in self.expected.items():
            self.assertNotIn("error", found[name], name)
            image = found[name]["tensors"]["image"]
            ours = np.frombuffer(bytes.fromhex(image["bytes"]), "u1").reshape(image["shape"]).transpose(1, 2, 0).astype(int)
            self.assertEqual(ours.shape, expected.shape, name)
            self.assertLessEqual(np.abs(ours - expected).max(), within, name)

    def test_png_of_every_kind(self):
        values = [0, 16, 64, 128, 192, 255]
        grey = np.repeat(np.array([values]), 3, axis=0).T[None].astype(int)
        chunks = {"none": [], "gamma": [(b"gAMA", struct.pack(">I", 45455))], "linear": [(b"gAMA", struct.pack(">I", 100000))], "srgb": [(b"sRGB", b"\0")],
                  "chrm": [(b"cHRM", struct.pack(">8I", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000))], "text": [(b"tEXt", b"a\0b")], "sbit": [(b"sBIT", b"\5")]}
        for name, extra in chunks.items():
            self.add(f"g8-{name}.png", png(6, 1, 8, 0, b"\0" + bytes(values), extra))
            # Pillow cuts 16-bit grey off at 255; a picture it is with the upper bits.
            self.add(f"g16-{name}.png", png(6, 1, 16, 0, b"\0" + b"".join(struct.pack(">H", v * 257) for v in values), extra), expected=grey)
            if name != "sbit":
                self.add(f"rgb16-{name}.png", png(6, 1, 16, 2, b"\0" + b"".join(struct.pack(">HHH", v * 257, v * 200, 65535 - v) for v in values), extra))
                self.add(f"rgba16-{name}.png", png(6, 1, 16, 6, b"\0" + b"".join(struct.pack(">HHHH", v * 257, v * 200, 65535 - v, v) for v in values), extra))
                self.add(f"ga16-{name}.png", png(6, 1, 16, 4, b"\0" + b"".join(struct.pack(">HH", v * 255, 30000) for v in values), extra))
        for depth in (1, 2, 4):
            raw = b"".join(b"\0" + bytes([0b00011011] * (8 * depth // 8)) for _ in range(3))
            self.add(f"g{depth}.png", png(8, 3, depth, 0, raw))
            self.add(f"g{depth}-clear.png", png(8, 3, depth, 0, raw, [(b"tRNS", b"\0\1")]))
            palette = bytes(range(3 * (1 << depth)))
            self.add(f"p{depth}.png", png(8, 3, depth, 3, raw, [(b"PLTE", palette)]))
            self.add(f"p{depth}-clear.png", png(8, 3, depth, 3, raw, [(b"PLTE", palette), (b"tRNS", b"\0\x80")]))
        self.add("rgb8-clear.png", png(2, 1, 8, 2, b"\0\1\2\3\4\5\6", [(b"tRNS", b"\0\1\0\2\0\3")]))
        for mode in ("1", "L", "LA", "P", "RGB", "RGBA"):
            self.add(f"{mode}.png", self.encoded(self.image.convert(mode), "PNG"))
        without_end = self.encoded(self.image, "PNG")[:-12]
        self.add("without_end.png", without_end, expected=self.pixels.astype(int))
        self.check()

    def test_png_in_passes_and_under_every_filter(self):
        random = np.random.default_rng(1)
        channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
        for colour, depth in [(0, 1), (0, 2), (0, 4), (0, 8), (0, 16), (2, 8), (2, 16), (3, 1), (3, 2), (3, 4), (3, 8), (4, 8), (4, 16), (6, 8), (6, 16)]:
            for width, height in ((1, 1), (2, 1), (1, 2), (3, 5), (5, 3), (8, 8), (9, 11), (33, 2)):
                samples = random.integers(0, 1 << depth, (height, width, channels[colour]))
                palette = [(b"PLTE", random.integers(0, 256, 3 << depth, dtype=np.uint8).tobytes())] if colour == 3 else []
                for passes in ([(0, 0, 1, 1)], ADAM7):
                    raw = b""
                    for x, y, step_x, step_y in passes:
                        part = samples[y::step_y, x::step_x]
                        if part.size == 0:
                            continue
                        before = bytes(len(packed(part[0].reshape(-1), depth)))
                        for row in part:
                            bytes_of = packed(row.reshape(-1), depth)
                            raw += filtered(bytes_of, before, max(1, depth * channels[colour] // 8), int(random.integers(0, 5)))
                            before = bytes_of
                    # Pillow cuts 16-bit grey off at 255; a picture it is with the upper bits.
                    expected = np.repeat(samples >> 8, 3, axis=2).astype(int) if (colour, depth) == (0, 16) else None
                    self.add(f"{colour}-{depth}-{width}x{height}-{len(passes)}.png", png(width, height, depth, colour, raw, palette, int(len(passes) > 1)), expected=expected)
        self.check()

    def test_jpeg_of_every_kind(self):
        rgb = self.encoded(self.image, "JPEG", quality=95)
        for fill in (b"\0" * 8, b"\0" * 500, b"\xff" * 3, bytes(range(1, 9)), b"\x55" * 40):
            self.add(f"fill-{len(fill)}-{fill[0]}.jpg", rgb[:-2] + fill + b"\xff\xd9", within=2)
        self.add("behind.jpg", rgb + b"what a camera adds", within=2)
        for quality, subsampling in ((95, 0), (75, 1), (75, 2)):
            self.add(f"rgb-{quality}-{subsampling}.jpg", self.encoded(self.image, "JPEG", quality=quality, subsampling=subsampling), within=2)
        self.add("progressive.jpg", self.encoded(self.image, "JPEG", progressive=True), within=2)
        self.add("grey.jpg", self.encoded(self.image.convert("L"), "JPEG"), within=2)
        cmyk = self.encoded(self.image.convert("CMYK"), "JPEG", quality=95)
        self.add("cmyk.jpg", cmyk, within=2)
        self.add("cmyk-progressive.jpg", self.encoded(self.image.convert("CMYK"), "JPEG", progressive=True), within=2)
        self.add("cmyk-plain.jpg", cmyk.replace(b"Adobe", b"Other"), within=2)
        ycck = cmyk.replace(b"Adobe\x00d\x00\x00\x00\x00\x00", b"Adobe\x00d\x00\x00\x00\x00\x02")
        self.assertNotEqual(ycck, cmyk)
        self.add("ycck.jpg", ycck, within=2)
        exif = Image.Exif()
        exif[0x0112] = 6  # to be turned by 90 degrees: not applied, as by Pillow
        self.add("turned.jpg", self.encoded(self.image, "JPEG", exif=exif), within=2)
        self.check()

    def test_webp_and_bmp(self):
        for name, options in {"lossy": {"quality": 80}, "lossless": {"lossless": True}, "near": {"quality": 100, "method": 6}}.items():
            for mode in ("RGB", "RGBA", "L"):
                self.add(f"{name}-{mode}.webp", self.encoded(self.image.convert(mode), "WEBP", **options), within=0 if name == "lossless" else 2)
        clear = Image.fromarray(np.dstack([self.pixels, self.pixels[..., :1]]))
        self.add("alpha.webp", self.encoded(clear, "WEBP", lossless=True, exact=True))
        for mode in ("1", "L", "P", "RGB", "RGBA"):
            self.add(f"{mode}.bmp", self.encoded(self.image.convert(mode), "BMP"))

        def bmp(bits, rows, *, height=2, compression=0, colours=0, masks=b"", palette=b"", header=40, width=6):
            info = struct.pack("<IiiHHIIiiII", header, width, height, 1, bits, compression, len(rows), 0, 0, colours, 0) + b"\0" * (header - 40)
            if header > 40:
                info = info[:40] + masks + info[40 + len(masks):]
                masks = b""
            offset = 14 + len(info) + len(masks) + len(palette)
            return b"BM" + struct.pack("<IHHI", offset + len(rows), 0, 0, offset) + info + masks + palette + rows
        palette = b"".join(struct.pack("<4B", 3 * i, 255 - i, 2 * i, 0) for i in range(16))
        words = struct.pack("<6H", 0, 31, 31 << 5, 31 << 10, 0x7fff, 0x1234) * 2
        longs = struct.pack("<6I", 0, 0xff, 0xff00, 0xff0000, 0xffffffff, 0x12345678) * 2
        self.add("p4.bmp", bmp(4, b"\x01\x23\x45\0\xfe\xdc\xba\0", palette=palette))
        self.add("p4-few.bmp", bmp(4, b"\x01\x23\x31\0\x12\x30\x12\0", palette=palette[:16], colours=4))
        self.add("p1.bmp", bmp(1, b"\xa4\0\0\0\x54\0\0\0", palette=palette[4:12]))
        self.add("top_down.bmp", bmp(24, bytes(range(40)), height=-2))
        self.add("w15.bmp", bmp(16, words))
        self.add("w16.bmp", bmp(16, words, compression=3, masks=struct.pack("<3I", 0xf800, 0x7e0, 0x1f)))
        self.add("l32.bmp", bmp(32, longs))
        self.add("l32-masks.bmp", bmp(32, longs, compression=3, masks=struct.pack("<3I", 0xff000000, 0xff0000, 0xff00)))
        self.add("l32-v5.bmp", bmp(32, longs, compression=3, header=124, masks=struct.pack("<4I", 0xff, 0xff00, 0xff0000, 0xff000000)))
        self.add("rle8.bmp", bmp(8, b"\4\1\0\0" b"\0\5\1\2\3\4\5\0\1\7\0\0\0\1", palette=palette, colours=16, compression=1))
        self.add("rle4.bmp", bmp(4, b"\6\x12\0\0" b"\0\6\x12\x34\x56\0\0\0\0\1", palette=palette, compression=2))
        self.add("rle8-top_down.bmp", bmp(8, b"\4\1\0\0" b"\0\5\1\2\3\4\5\0\1\7\0\0\0\1", palette=palette, colours=16, compression=1, height=-2))
        self.add("rle8-no_end.bmp", bmp(8, b"\6\1\0\0" b"\6\2", palette=palette, colours=16, compression=1))
        self.add("w16-os2.bmp", bmp(16, words, compression=3, header=64, masks=struct.pack("<3I", 0xf800, 0x7e0, 0x1f)))
        core = b"BM" + struct.pack("<IHHI", 0, 0, 0, 14 + 12 + 6) + struct.pack("<IHHHH", 12, 9, 1, 1, 1) + b"\1\2\3\xff\xfe\xfd" + b"\xa5\x80\0\0"
        self.add("os2.bmp", core)
        self.check()

    def test_bitmaps_are_taken_and_refused_as_by_pillow(self):
        rng = random.Random(16)
        wanted = {}
        for at in range(1200):
            data = bitmap(rng)
            (self.folder / f"{at}.bmp").write_bytes(data)
            try:
                with warnings.catch_warnings(action="ignore"):
                    wanted[f"{at}.bmp"] = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).transpose(2, 0, 1).tobytes().hex()
            except (OSError, ValueError, SyntaxError):
                wanted[f"{at}.bmp"] = None
        found = self.read(self.folder / name for name in wanted)
        for name, pixels in wanted.items():
            taken = None if "error" in found[name] else found[name]["tensors"]["image"]["bytes"]
            self.assertEqual(taken, pixels, f"{name}: {(self.folder / name).read_bytes().hex()} {found[name].get('error', '')}")
        self.assertGreater(sum(pixels is not None for pixels in wanted.values()), 400)

    def test_what_is_cut_or_of_another_kind_is_named(self):
        data = {"cut.webp": self.encoded(self.image, "WEBP")[:-9], "cut.bmp": self.encoded(self.image, "BMP")[:-1], "cut.png": self.encoded(self.image, "PNG")[:-14],
                "cut.jpg": self.encoded(self.image, "JPEG")[:-20], "x.gif": self.encoded(self.image, "GIF"), "x.tif": self.encoded(self.image, "TIFF"),
                "moving.webp": self.encoded(self.image, "WEBP", save_all=True, append_images=[Image.fromarray(255 - self.pixels)]), "page.jpg": b"<!DOCTYPE html>", "empty.png": b"",
                "pointer.png": b"version https://git-lfs.github.com/spec/v1\n"}
        wanted = {"x.gif": "a GIF; allowed: JPEG, PNG, WebP, BMP", "x.tif": "a TIFF", "moving.webp": "an animation", "page.jpg": "HTML", "empty.png": "empty", "pointer.png": "Git LFS",
                  "cut.webp": "cut", "cut.bmp": "cut", "cut.png": "cut", "cut.jpg": "cut.jpg"}
        for name, bytes_of in data.items():
            (self.folder / name).write_bytes(bytes_of)
        found = self.read(self.folder / name for name in wanted)
        for name, problem in wanted.items():
            self.assertIn(problem, found[name]["error"])
            self.assertIn(name, found[name]["error"])

    def test_folders_of_images(self):
        for name in ("cats", "dogs/old/b", "dogs/new", "birds", ".hidden"):
            (self.folder / name).mkdir(parents=True)
        for name in ("cats/b.JPG", "cats/a.jpeg", "dogs/z.bmp", "dogs/old/x.webp", "dogs/old/b/y.png", "dogs/new/a.png", "birds/c.png", ".hidden/d.png"):
            self.image.save(self.folder / name)
        (self.folder / "cats/notes.txt").write_text("no image")
        self.image.save(self.folder / "beside.png")
        (self.folder / "link").symlink_to(self.folder / "dogs")
        found = self.tool("folder", self.folder)
        self.assertEqual(found["classes"], ["birds", "cats", "dogs", "link"])
        dogs = ["z.bmp", "new/a.png", "old/x.webp", "old/b/y.png"]  # as torchvision walks
        self.assertEqual([os.path.relpath(path, self.folder) for path in found["files"]],
                         ["birds/c.png", "cats/a.jpeg", "cats/b.JPG", *(f"dogs/{d}" for d in dogs), *(f"link/{d}" for d in dogs)])
        self.assertEqual(found["left_out"], 2)
        (self.folder / "empty").mkdir()
        (self.folder / "films").mkdir()
        (self.folder / "films/x.gif").write_bytes(b"GIF89a")
        problem = self.tool("folder", self.folder)["error"]
        for text in ("the classes empty, films", "1 files of other kinds", ".jpg .jpeg .png .webp .bmp"):
            self.assertIn(text, problem)
        self.assertIn("images lie in the folder itself", self.tool("folder", self.folder / "cats")["error"])
        (self.folder / "empty/ring").symlink_to(self.folder / "empty")
        self.assertIn("ring", self.tool("folder", self.folder)["error"])


if __name__ == "__main__":
    unittest.main(verbosity=2)
