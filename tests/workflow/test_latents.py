"""Table 6 from image files to the table, by its real stages: a tiny autoencoder, flow and EVA02 of random weights.

At each submission, tests/data/test_latents.py and those of the stages read and write latents, and .ci/run makes Table 6
of pixels.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from .conftest import clone_project

diffusers = pytest.importorskip("diffusers")
ImageNetInfo = pytest.importorskip("timm.data").ImageNetInfo

SIDE = 32


def image_folder(folder: Path) -> None:
    """300 digits in the guise of ImageNet: synset folders, names of its validation images, one file of another size."""
    digits = load_digits()
    synsets = ImageNetInfo("imagenet-1k").label_names()[:10]
    for index in range(300):
        split, name = ("train", f"{index}.png") if index < 200 else ("val", f"ILSVRC2012_val_{index:08d}.png")
        pixels = Image.fromarray(np.uint8(digits.images[index] * 15.9)).convert("RGB")
        path = folder / split / synsets[digits.target[index]] / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels.resize((SIDE, 40 if index == 7 else SIDE)).save(path)


def autoencoder(folder: Path) -> None:
    """A quarter of the side, 4 channels."""
    torch.manual_seed(0)
    blocks = {"down_block_types": ("DownEncoderBlock2D",) * 3, "up_block_types": ("UpDecoderBlock2D",) * 3}
    diffusers.AutoencoderKL(
        **blocks, block_out_channels=(8, 8, 16), norm_num_groups=4, sample_size=SIDE
    ).save_pretrained(folder)


def settings(folder: Path) -> dict[str, object]:
    small = {"architecture": {"patch_size": 8, "embed_dim": 16, "depth": 1, "num_heads": 2}, "image_size": SIDE}
    of_classifier = {**small, "epochs": 2, "batch_size": 50, "optimizer": "adamw", "learning_rate": 1e-3}
    row = {"dataset": "imagenet", "classifier": "eva02"}
    pretrained = {**row, "classifier": "eva02_pretrained"}
    return {
        "datasets": {
            "imagenet": {
                **{"source": "imagefolder", "folder": str(folder / "images"), "vae": str(folder / "vae")},
                **{"image_size": SIDE, "validation_fraction": 0.2, "real_labels": True},
            }
        },
        "flows": {"mef": {"num_flows": [1, 1], "num_blocks": [0, 0], "hidden_channels": [8, 8]}},
        "training": {"epochs": 2, "batch_size": 50, "warmup_steps": 5, "augmentation": "none"},
        "nfa": {"axes": 4, "variants": 2},
        "classifiers": {"eva02_pretrained": {**of_classifier, "schedule": "constant"}, "eva02": of_classifier},
        "tables": {
            "table6": {
                "title": "a small one",
                "metrics": ["top1", "top5", "real_top1", "real_top5"],
                "experiments": [
                    {**pretrained, "label": "Baseline", "prior": None, "augmentation": "none"},
                    {**row, "label": "SA", "prior": None, "augmentation": "standard"},
                    {**row, "label": "NFA", "lambdas": [10], "augmentation": "nfa"},
                ],
            }
        },
    }


@pytest.mark.long
def test_from_image_files_to_the_table(tmp_path: Path) -> None:
    image_folder(tmp_path / "images")
    autoencoder(tmp_path / "vae")
    project = clone_project(tmp_path / "clone")
    project.write("overlay.yaml", settings(tmp_path))
    project.use_real_stages()
    project.run_snakemake("table6", "--configfile", "overlay.yaml", "--cores", "2")
    results = project.folder / "results/demo"
    table = pd.read_csv(results / "tables/table6.csv")
    assert table["status"].tolist() == ["ok"] * 3
    assert table["row"].tolist() == ["Baseline", "SA", "NFA"]
    for metric in ("top1", "top5", "real_top1", "real_top5"):
        assert table[metric].between(0, 100).all()
    assert np.load(results / "imagenet/splits/train/images.npy").shape == (160, 8, 8, 4)
    variants = json.loads((results / "imagenet/mef/fpi/lambda=10/seed=0/augmented/meta.json").read_text())
    assert (variants["shape"], variants["dtype"]) == ([320, 8, 8, 4], "float16")
    again = project.run_snakemake("table6", "--configfile", "overlay.yaml", "--dry-run").stdout
    assert "Nothing to be done" in again
