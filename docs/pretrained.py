"""Make the models that `ClassConditionalFlow.from_pretrained` knows by name, from runs of the workflow.

snakemake table2
snakemake results/fashion_mnist/fashion_mnist/mef/fpi/lambda=30000/seed=0/metrics.json --config preset=fashion_mnist
python docs/pretrained.py
"""

import shutil
from pathlib import Path

from nfpi import ClassConditionalFlow
from nfpi.data import read_image_set

RESULTS = Path("results")
FOLDER = Path(__file__).parents[1] / "src/nfpi/model/pretrained"
MODELS = {  # name: preset, run, licence of the images
    "digits": ("demo", "digits/mef/fpi/lambda=10000/seed=0", "cc-by-4.0"),
    "fashion_mnist": ("fashion_mnist", "fashion_mnist/mef/fpi/lambda=30000/seed=0", "mit"),
}

if __name__ == "__main__":
    for name, (preset, run, license) in MODELS.items():
        model = ClassConditionalFlow.from_pretrained(RESULTS / preset / run / "model")
        validation, test = (
            read_image_set(RESULTS / preset / name / "splits" / split) for split in ("validation", "test")
        )
        model = model.calibrate(validation.images, validation.labels)
        shutil.rmtree(FOLDER / name, ignore_errors=True)
        model.save_pretrained(FOLDER / name, metrics=model.evaluate(test.images, test.labels), license=license)
