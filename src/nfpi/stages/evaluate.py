"""The stage that measures a trained flow."""

from __future__ import annotations

import logging
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nfpi.config.generation import EvaluationConfig
from nfpi.config.metrics import VALIDATION_PREFIX
from nfpi.results.recorded.csv_files import read_column
from nfpi.runs import INITIAL_FILES, MODEL_FILES
from nfpi.stages.measuring import MeasuringStage, fit_to_validation
from nfpi.stages.prepare_data import list_meta_files

if TYPE_CHECKING:
    import torch

    from nfpi.evaluation import FlowScores
    from nfpi.model.trained import TrainedFlow

logger = logging.getLogger(__name__)


class Evaluate(MeasuringStage):
    """Measure NF-Acc, bits/dim and more of a trained flow.

    Uses all splits: the training images tell how the latents follow the prior.
    """

    command = "evaluate"
    inputs = {
        "data": list_meta_files("train", "validation", "test"),
        "initial": (INITIAL_FILES["statistics"],),  # before the model, whose λ is that of the run
        "model": tuple(MODEL_FILES.values()),
        "history": (),
    }
    uses = ("flow",)

    model: Path
    """folder of the model"""
    history: Path | None = None
    """log.csv of its training, for the training time"""
    initial: Path | None = None
    """folder of the initial state that its Gaussians were fitted to, for `beta_fit`"""
    evaluation: EvaluationConfig = EvaluationConfig()

    def run(self) -> None:
        """Evaluate on the test split and, unless it is empty, the validation split; and time sampling."""
        from nfpi.model.trained import TrainedFlow
        from nfpi.runtime.device import make_device

        began = time.monotonic()
        model, device = TrainedFlow.read(self.model), make_device().device
        flow = model.flow.to(device)
        test, validation = self._score(model, "test", device), self._score(model, "validation", device)
        assert test is not None
        temperature = fit_to_validation(validation)
        metrics = {
            **self._measure(test, temperature),
            "parameters": sum(parameter.numel() for parameter in flow.parameters()) / 1e6,
            "seconds_per_1000_samples": _measure_sampling_time(model, self.evaluation.timed_samples, device),
            **_read_training_time(self.history),
            **self._measure_following(model, test.bits_per_dim, device),
        }
        iterations = model.config.get("prior", {}).get("iterations")
        if iterations is not None:
            metrics["fit_iterations"] = float(iterations)
        if validation is not None and temperature is not None:
            measured = self._measure(validation, temperature)
            metrics |= {f"{VALIDATION_PREFIX}{name}": value for name, value in measured.items()}
            metrics["calibration_temperature"] = temperature
            metrics |= self._measure_detection(model, test, validation, device)
        self.write(test, validation, metrics, {"flow": flow.description, **model.config}, model.seed, device, began)
        logger.info("NF-Acc %.2f %%, %.4f bits/dim on %d test images", test.nf_acc, test.bits_per_dim, test.n)

    def _measure_detection(
        self, model: TrainedFlow, test: FlowScores, validation: FlowScores, device: torch.device
    ) -> dict[str, float]:
        """Return how well images of the other data set, if any, are told from test images by each score."""
        from nfpi.evaluation import measure_unknown
        from nfpi.results.statistics.abstention import compute_margins
        from nfpi.results.statistics.detection import Typicality, measure_detection

        if (images := self.read_unknown()) is None:
            return {}
        log_prob, distance = measure_unknown(model.flow, model.prior, images, **self._choose_batches(model, device))
        typicality = Typicality.from_validation(validation.distance.numpy())
        return measure_detection(
            {
                "confidence": (-compute_margins(test.log_prob.numpy()), -compute_margins(log_prob.numpy())),
                "density": (-test.log_prob.logsumexp(1).numpy(), -log_prob.logsumexp(1).numpy()),
                "typicality": (typicality.measure(test.distance.numpy()), typicality.measure(distance.numpy())),
            }
        )

    def _score(self, model: TrainedFlow, split: str, device: torch.device) -> FlowScores | None:
        """Evaluate the flow on a split; None: there are no images for validation."""
        from nfpi.data.store import MAY_BE_EMPTY, read_image_set
        from nfpi.evaluation import evaluate_flow

        images = read_image_set(self.data / split)
        if split == MAY_BE_EMPTY and not len(images):
            return None
        return evaluate_flow(model.flow, model.prior, images, **self._choose_batches(model, device))

    def _choose_batches(self, model: TrainedFlow, device: torch.device) -> dict[str, Any]:
        """Return the arguments that determine the batches and their noise, the same for every pass over a split."""
        return {
            "batch_size": self.evaluation.batch_size,
            "seed": model.seed,
            "domain": model.domain,
            "device": device,
        }

    def _measure_following(self, model: TrainedFlow, bits_per_dim: float, device: torch.device) -> dict[str, float]:
        """Return the metrics that tell whether the latents follow the prior.

        Args:
            model: the model, with its flow on the device.
            bits_per_dim: bits/dim of the test images under the prior.
            device: the device.
        """
        from nfpi.data.store import read_image_set
        from nfpi.evaluation import collect_statistics, evaluate_flow
        from nfpi.priors.files import load_statistics
        from nfpi.priors.following import compute_beta, estimate_moments, measure_following
        from nfpi.priors.registry import find_relative_weight, is_fitted_to_means

        train, test = (read_image_set(self.data / split) for split in ("train", "test"))
        batches, record = self._choose_batches(model, device), model.config.get("prior", {})
        of_train, of_test = (
            collect_statistics(model.flow, images, covariance=model.prior.is_full, **batches)
            for images in (train, test)
        )
        found = measure_following(model.prior, of_train)
        metrics: dict[str, float | None] = {
            "training_distance": found.distance,
            "distance": measure_following(model.prior, of_test).distance,
            "prior_separation": found.prior_separation,
            "latent_separation": found.latent_separation,
            "relative_weight": find_relative_weight(record, *model.prior.mean.shape),
        }
        if found.mismatch is not None:
            under_moments = evaluate_flow(model.flow, estimate_moments(of_train), test, **batches)
            metrics["mismatch"] = bits_per_dim - under_moments.bits_per_dim
        if is_fitted_to_means(record):
            metrics["beta"] = found.beta
            if self.initial is not None and "method" in record and "refit" not in record:
                at_fit = load_statistics(self.initial / INITIAL_FILES["statistics"])
                metrics["beta_fit"] = compute_beta(model.prior, at_fit)
        return {name: value for name, value in metrics.items() if value is not None}

    def _measure(self, scores: FlowScores, temperature: float | None) -> dict[str, float]:
        """Return the metrics of one split."""
        own = {name: getattr(scores, name) for name in ("nf_acc", "nf_top5", "bits_per_dim")}
        return own | self.compute_metrics(scores, temperature)


def _measure_sampling_time(model: TrainedFlow, count: int, device: torch.device) -> float:
    """Return the wall-clock seconds per 1000 samples, measured on a batch of `count` after a warm-up batch."""
    from nfpi.sampling import balanced_labels, sample_images

    labels = balanced_labels(model.prior.num_classes, -(-count // model.prior.num_classes))[:count]
    settings: dict[str, Any] = {"temperature": 1.0, "seed": model.seed, "batch_size": len(labels)}
    seconds = 0.0
    for _ in range(2):
        began = time.monotonic()
        for _ in sample_images(model.flow, model.prior, labels, domain=model.domain, device=device, **settings):
            pass
        seconds = time.monotonic() - began
    return 1000 * seconds / len(labels)


def _read_training_time(history: Path | None) -> dict[str, float]:
    """Return the hours of the training and the median time per epoch, if its log is given."""
    # the cells of epochs of the initial state are empty
    seconds = [] if history is None else read_column(history, "seconds")
    return {"hours": sum(seconds) / 3600, "seconds_per_epoch": statistics.median(seconds)} if seconds else {}
