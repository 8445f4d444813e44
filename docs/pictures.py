"""Remake the stale pictures of docs/images: `python docs/pictures.py`, or some by name: `python docs/pictures.py walk`.

Each picture keeps, as text in its PNG file, the digest of its command, the figure's settings in the preset, the code
that draws it and, if it is drawn from them, the checksums of the evidence. It is stale if one of these has changed.
Whether the flows behind it would be trained to the same images today is not known. For a picture that was looked at
and still shows what its command draws, `--keep` only renews the digest.
"""

import argparse
import hashlib
import json
import re
import subprocess
from pathlib import Path

import yaml
from PIL import Image
from PIL.PngImagePlugin import PngInfo

ROOT = Path(__file__).parents[1]
IMAGES = ROOT / "docs/images"
KEY = "made from"
"""Name of the text in a PNG file."""

EVIDENCE = "nfpi tables docs/evidence --output results/pictures"
SEEN = "python docs/images_seen.py"
EXAMPLE = "python examples/unknown_images.py --output results/pictures"
PAGE = (
    "snakemake table2 && chromium --headless --no-sandbox --hide-scrollbars --window-size=1280,960"
    " --screenshot=results/pictures/page.png results/demo/index.html"
)
FASHION = "snakemake samples_by_weight --config preset=fashion_mnist"
OF_FASHION = "results/fashion_mnist/figures"
FRONT = "snakemake table2 --config preset=fashion_mnist && python docs/front.py"
CIFAR10 = "snakemake figure2 --config preset=cifar10"
BY_WEIGHT = "snakemake samples_by_weight --config preset=cifar10"
OF_CIFAR10 = "results/cifar10/figures"
PICTURES = {
    "claims": (EVIDENCE, "results/pictures/digits/claims.png", "src/nfpi/figures/claims.py"),
    "following": (EVIDENCE, "results/pictures/following.png", "src/nfpi/figures/following.py"),
    "frontier": (EVIDENCE, "results/pictures/fashion_mnist/figures/frontier.png", "src/nfpi/figures/frontier.py"),
    "frontier_cifar10": (EVIDENCE, "results/pictures/cifar10/figures/frontier.png", "src/nfpi/figures/frontier.py"),
    "images_seen": (SEEN, "results/pictures/images_seen.png", "docs/images_seen.py"),
    "unknown_images": (EXAMPLE, "results/pictures/unknown_images.png", "examples/unknown_images.py"),
    "walk": (EXAMPLE, "results/pictures/walk.png", "examples/unknown_images.py"),
    "page": (PAGE, "results/pictures/page.png", "src/nfpi/page/templates/page.*"),
    "samples_by_weight": (FASHION, f"{OF_FASHION}/samples_by_weight.png", "src/nfpi/figures/samples_by_weight.py"),
    "latents_by_weight": (FASHION, f"{OF_FASHION}/latents_by_weight.png", "src/nfpi/figures/samples_by_weight.py"),
    "samples_by_weight_cifar10": (
        BY_WEIGHT,
        f"{OF_CIFAR10}/samples_by_weight.png",
        "src/nfpi/figures/samples_by_weight.py",
    ),
    "latents_by_weight_cifar10": (
        BY_WEIGHT,
        f"{OF_CIFAR10}/latents_by_weight.png",
        "src/nfpi/figures/samples_by_weight.py",
    ),
    "front_light": (FRONT, "results/pictures/front_light.png", "docs/front.py"),
    "front_dark": (FRONT, "results/pictures/front_dark.png", "docs/front.py"),
    "nfa_cifar10": (CIFAR10, f"{OF_CIFAR10}/figure2.png", "src/nfpi/figures/figure2.py"),
}
DEMO = yaml.safe_load((ROOT / "presets/demo.yaml").read_text(encoding="utf-8"))["figures"]
SHOWN = re.findall(r"images/(\w+)\.png", (ROOT / "docs/gallery.md").read_text(encoding="utf-8"))
PICTURES |= {
    name: (f"snakemake {figure}", f"results/demo/figures/{figure}.png", f"src/nfpi/figures/{figure}.py")
    for name, figure in {"demo": "accuracy_against_weight", **{name: name for name in DEMO if name in SHOWN}}.items()
    if name not in PICTURES
}
"""By name: the command, the file that it writes, and the code that draws it."""


def compute_digest(name: str) -> str:
    """Compute the digest of what a picture is made from."""
    command, _, code = PICTURES[name]
    parts = [command]
    for path in sorted(ROOT.glob(code)):
        text = path.read_text(encoding="utf-8")
        modules = re.findall(r"^ *from nfpi\.figures\.((?!drawn)\w+) import", text, re.MULTILINE)
        parts += [text, *((ROOT / f"src/nfpi/figures/{module}.py").read_text(encoding="utf-8") for module in modules)]
    if command in (EVIDENCE, SEEN):
        parts += [path.read_text(encoding="utf-8") for path in sorted(ROOT.glob("docs/evidence/*/SHA256SUMS"))]
    if drawn := re.match(r"snakemake (\w+)(?: --config preset=(\w+))?", command):
        preset = yaml.safe_load((ROOT / f"presets/{drawn[2] or 'demo'}.yaml").read_text(encoding="utf-8"))
        parts.append(json.dumps([preset["figures"].get(drawn[1]), preset.get("flows"), preset.get("training")]))
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def list_stale() -> list[str]:
    """List the pictures with another digest than that of what they would be made from now."""
    return [name for name in PICTURES if Image.open(IMAGES / f"{name}.png").info.get(KEY) != compute_digest(name)]


def save(name: str, picture: Path) -> None:
    """Save a picture in docs/images in 256 colours, with its digest."""
    text = PngInfo()
    text.add_text(KEY, compute_digest(name))
    with Image.open(picture) as image:
        small = image.convert("RGB").quantize(256)
        small.save(IMAGES / f"{name}.png", pnginfo=text, dpi=image.info.get("dpi"), optimize=True)


def main() -> None:
    """Run each command once, and save its pictures."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="names of pictures; none: all that are stale")
    parser.add_argument("--keep", action="store_true", help="renew the digests only")
    options = parser.parse_args()
    names = options.names or list_stale()
    for command in () if options.keep else dict.fromkeys(PICTURES[name][0] for name in names):
        (ROOT / "results/pictures").mkdir(parents=True, exist_ok=True)
        subprocess.run(command, shell=True, check=True, cwd=ROOT)
    for name in names:
        save(name, IMAGES / f"{name}.png" if options.keep else ROOT / PICTURES[name][1])


if __name__ == "__main__":
    main()
