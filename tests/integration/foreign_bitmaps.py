"""BMP files of every header, palette, compression and layout, whole and broken: what readers may meet, drawn at random."""

import struct

LAYOUTS = [(0xF800, 0x7E0, 0x1F, 0), (0x7C00, 0x3E0, 0x1F, 0), (0xFF0000, 0xFF00, 0xFF, 0), (0xFF000000, 0xFF0000, 0xFF00, 0), (0xFF000000, 0xFF00, 0xFF, 0),
           (0xFF000000, 0xFF0000, 0xFF00, 0xFF), (0xFF, 0xFF00, 0xFF0000, 0xFF000000), (0xFF0000, 0xFF00, 0xFF, 0xFF000000), (0xFF000000, 0xFF00, 0xFF, 0xFF0000),
           (0, 0, 0, 0), (0xFF, 0xFF00, 0xFF0000, 0), (0xF00, 0xF0, 0xF, 0), (0x3FF00000, 0xFFC00, 0x3FF, 0)]


def some_bytes(rng, count):
    return bytes(rng.randrange(256) for _ in range(count))


def palette_of(rng, entries, width):
    if rng.random() < 0.6:
        return some_bytes(rng, entries * width)
    shades = [0, 255] if entries == 2 else range(entries)
    return b"".join(bytes([shade % 256] * 3 + [0] * (width - 3)) for shade in shades)


def runs_of(rng, width, height, halves):
    """Runs and escapes that fill the picture, or any bytes."""
    if rng.random() < 0.5:
        return b"".join(bytes([rng.choice([0, 0, 1, 2, 3, 5]), rng.choice([0, 1, 2, 3, 4, 7, rng.randrange(256)])]) for _ in range(rng.randint(0, 40)))
    parts = []
    for _ in range(height):
        left = width
        while left > 0:
            count = rng.randint(1, left)
            if count >= 3 and rng.random() < 0.4:
                values = some_bytes(rng, (count + 1) // 2 if halves else count)
                parts.append(bytes([0, count]) + values + b"\0" * (len(values) % 2))
            else:
                parts.append(bytes([count, rng.randrange(256)]))
            left -= count
        parts.append(rng.choice([b"", b"\0\0", b"\0\0", b"\0\0"]))
    return b"".join(parts) + rng.choice([b"", b"\0\1"])


def rows_of(rng, width, height, bits):
    rows = some_bytes(rng, (width * bits + 31) // 32 * 4 * height)
    return rng.choice([rows] * 8 + [rows[:-rng.randint(1, 8)], rows + b"more"])


def header_of(rng, size, width, height, bits, compression, colours):
    if size == 12:
        return struct.pack("<IHHHH", size, width, height, 1, bits)
    top_down = rng.random() < 0.2
    header = struct.pack("<IiiHHIIiiII", size, width, -height if top_down else height, 1, bits, compression, 0, 0, 0, colours, 0)
    if size > 40:
        masks = struct.pack("<4I", *rng.choice(LAYOUTS))[: 12 if size == 52 else 16]
        header += masks + bytes(size - 40 - len(masks))
    return header


def bitmap(rng):
    size = rng.choice([12, 40, 40, 40, 52, 56, 64, 108, 124])
    width, height = rng.randint(1, 9), rng.randint(1, 4)
    bits = rng.choice([1, 4, 8, 8, 16, 24, 32, 32, 2])
    compression = 0 if size == 12 else rng.choice([0, 0, 0, 3, 3, 1, 2, 4])
    if rng.random() < 0.8:
        bits = {1: 8, 2: 4, 3: rng.choice([16, 24, 32])}.get(compression, bits)
    colours = 0 if size == 12 else rng.choice([0, 0, 0, 2, 4, 16, 256, 300])
    palette = palette_of(rng, colours or 1 << bits, 3 if size == 12 else 4) if bits <= 8 else b""
    header = header_of(rng, size, width, height, bits, compression, colours)
    masks = struct.pack("<3I", *rng.choice(LAYOUTS)[:3]) if compression == 3 and size == 40 else b""
    pixels = runs_of(rng, width, height, compression == 2) if compression in (1, 2) else rows_of(rng, width, height, bits)
    behind = 14 + len(header) + len(masks) + len(palette)
    offset = rng.choice([behind] * 8 + [0, 14 + len(header), behind + 4])
    gap = bytes(max(0, offset - behind))
    return b"BM" + struct.pack("<IHHI", behind + len(gap) + len(pixels), 0, 0, offset) + header + masks + palette + gap + pixels
