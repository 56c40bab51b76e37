"""The peer of bench/programs/image_loader.cc: torch's DataLoader with Pillow and the transforms that torchvision has.

    python bench/peers/image_loader.py FOLDER WORKERS BATCH_SIZE EPOCHS
"""

import json
import math
import pathlib
import random
import sys
import time

import numpy
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

MEAN, DEVIATION = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)


def random_resized_crop(image, size):
    width, height = image.size
    for _ in range(10):
        area, ratio = random.uniform(0.08, 1) * width * height, math.exp(random.uniform(math.log(3 / 4), math.log(4 / 3)))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            x, y = random.randint(0, width - w), random.randint(0, height - h)
            return image.crop((x, y, x + w, y + h)).resize((size, size), Image.BILINEAR)
    return image.resize((size, size), Image.BILINEAR)


class Folder(Dataset):
    def __init__(self, folder):
        self.samples = [(path, number) for number, one in enumerate(sorted(pathlib.Path(folder).iterdir())) for path in sorted(one.iterdir())]

    def __len__(self):
        return len(self.samples)

    def __getitem__(self, index):
        path, label = self.samples[index]
        image = random_resized_crop(Image.open(path).convert("RGB"), 224)
        if random.random() < 0.5:
            image = image.transpose(Image.FLIP_LEFT_RIGHT)
        tensor = torch.from_numpy(numpy.array(image)).permute(2, 0, 1).contiguous().to(torch.float32).div(255)
        return tensor.sub_(MEAN).div_(DEVIATION), label


def main():
    folder, workers, batch, epochs = sys.argv[1], *map(int, sys.argv[2:])
    torch.set_num_threads(1)
    loader = DataLoader(Folder(folder), batch_size=batch, shuffle=True, num_workers=workers, persistent_workers=workers > 0)
    rates = []
    for _ in range(epochs):
        began, seen = time.time(), 0
        for _, labels in loader:
            seen += len(labels)
        rates.append(seen / (time.time() - began))
    print(json.dumps({"images_per_second": rates}))


if __name__ == "__main__":
    main()
