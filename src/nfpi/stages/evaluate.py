"""The stage that measures a trained flow."""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nfpi.config.flows import EvaluationConfig
from nfpi.config.metrics import VALIDATION_PREFIX
from nfpi.results.recorded.csv_files import read_column
from nfpi.runs import FLOW_RUN, INITIAL_FILES, LOG_FILE, MODEL_FILES, Run
from nfpi.stages.common import UNKNOWN, DetectingStage, fit_to_validation
from nfpi.stages.jobs import Job, Need, Needs, Planned, Wildcards
from nfpi.stages.models import need_model
from nfpi.stages.prepare_data import list_meta_files, need_splits
from nfpi.stages.train_flow import TrainFlow, need_initial

if TYPE_CHECKING:
    from nfpi.evaluation import FlowScores
    from nfpi.model import ClassConditionalFlow
    from nfpi.priors.following import Following

logger = logging.getLogger(__name__)


class Evaluate(DetectingStage):
    """Measure NF-Acc, bits/dim and more of a trained flow.

    Uses all splits: the training images tell how the latents follow the prior.
    """

    command = "evaluate"
    places = (FLOW_RUN,)
    inputs = {
        "data": list_meta_files("train", "validation", "test"),
        "initial": (INITIAL_FILES["statistics"],),
        "model": tuple(MODEL_FILES.values()),
        "history": (),
        **UNKNOWN,
    }
    uses = ("flow",)

    model: Path
    """folder of the model"""
    history: Path | None = None
    """log.csv of its training, for the training time"""
    initial: Path | None = None
    """folder of the initial state that its Gaussians were fitted to, for `beta_fit`"""
    evaluation: EvaluationConfig = EvaluationConfig()

    def list_needs(self, planned: Planned, wildcards: Wildcards) -> Needs:
        """Return the splits and the model and, if it was trained here, its log and its initial state."""
        needs: Needs = {
            "data": [need_splits(planned, wildcards["dataset"], wildcards["seed"])],
            "model": [need_model(wildcards)],
            **self.need_unknown(planned, wildcards),
        }
        run = Run.from_wildcards(wildcards)
        if run.is_imported:
            return needs
        training = Job.of(TrainFlow, run.of_training.wildcards)
        return needs | {"history": [Need(training, LOG_FILE)], "initial": [need_initial(planned, wildcards)]}

    def run(self) -> None:
        """Evaluate on the test split and, unless it is empty, the validation split; and time sampling.

        Each split passes the flow once.
        """
        from nfpi.data.store import read_image_set
        from nfpi.evaluation import collect_statistics, evaluate_priors
        from nfpi.model import ClassConditionalFlow
        from nfpi.priors.following import estimate_moments, measure_following
        from nfpi.runtime.device import make_device

        began = time.monotonic()
        model, device = ClassConditionalFlow.read(self.model), make_device().device
        flow, batches = model.flow.to(device), self._choose_batches(model)
        train, images = (read_image_set(self.data / split) for split in ("train", "test"))
        of_train = collect_statistics(flow, train, covariance=model.prior.is_full, **batches)
        following = measure_following(model.prior, of_train)
        moments = [] if following.mismatch is None else [estimate_moments(of_train)]
        test, *under_moments = evaluate_priors(flow, [model.prior, *moments], images, **batches)
        validation = self._score_validation(model)
        temperature = fit_to_validation(validation)
        metrics = {
            **self._measure(test, temperature),
            "parameters": sum(parameter.numel() for parameter in flow.parameters()) / 1e6,
            **_read_training_time(self.history),
            **self._measure_following(model, following, test, under_moments),
        }
        try:
            seconds = _measure_sampling_time(model, self.evaluation.timed_samples)
        except FloatingPointError:  # a flow that is far from its prior still classifies
            logger.warning("samples at temperature 1 are not finite: the time of sampling is not measured")
        else:
            metrics["seconds_per_1000_samples"] = seconds
        if "unseen" in model.config:
            metrics["unseen"] = float(model.config["unseen"])
        iterations = model.config.get("prior", {}).get("iterations")
        if iterations is not None:
            metrics["fit_iterations"] = float(iterations)
        if validation is not None and temperature is not None:
            measured = self._measure(validation, temperature)
            metrics |= {f"{VALIDATION_PREFIX}{name}": value for name, value in measured.items()}
            metrics["calibration_temperature"] = temperature
            metrics |= self._measure_detection(model, test, validation)
        self.write(test, validation, metrics, {"flow": flow.description, **model.config}, model.seed, device, began)
        logger.info("NF-Acc %.2f %%, %.4f bits/dim on %d test images", test.nf_acc, test.bits_per_dim, test.n)

    def _measure_detection(
        self, model: ClassConditionalFlow, test: FlowScores, validation: FlowScores
    ) -> dict[str, float]:
        """Return how well images of the other data set, if any, are told from test images by each score."""
        from nfpi.evaluation import measure_unknown
        from nfpi.results.statistics.abstention import compute_margins
        from nfpi.results.statistics.detection import Typicality, measure_detection

        if (images := self.read_unknown()) is None:
            return {}
        log_prob, distance = measure_unknown(model.flow, model.prior, images, **self._choose_batches(model))
        typicality = Typicality.from_validation(validation.distance.numpy())
        return measure_detection(
            {
                "confidence": (-compute_margins(test.log_prob.numpy()), -compute_margins(log_prob.numpy())),
                "density": (-test.log_prob.logsumexp(1).numpy(), -log_prob.logsumexp(1).numpy()),
                "typicality": (typicality.measure(test.distance.numpy()), typicality.measure(distance.numpy())),
            }
        )

    def _score_validation(self, model: ClassConditionalFlow) -> FlowScores | None:
        """Evaluate the flow on the validation split; None: it is empty."""
        from nfpi.data.store import MAY_BE_EMPTY, read_image_set
        from nfpi.evaluation import evaluate_flow

        images = read_image_set(self.data / MAY_BE_EMPTY)
        if not len(images):
            return None
        return evaluate_flow(model.flow, model.prior, images, **self._choose_batches(model))

    def _choose_batches(self, model: ClassConditionalFlow) -> dict[str, Any]:
        """Return the arguments that determine the batches and their noise, the same for every pass over a split."""
        return {"batch_size": self.evaluation.batch_size, "seed": model.seed, "domain": model.domain}

    def _measure_following(
        self, model: ClassConditionalFlow, found: Following, test: FlowScores, under_moments: Sequence[FlowScores]
    ) -> dict[str, float]:
        """Return the metrics that tell whether the latents follow the prior.

        Args:
            model: the model.
            found: measures of the training latents.
            test: scores of the test images under the prior.
            under_moments: their scores under the class moments of the training latents; empty if these have none.
        """
        from nfpi.priors.files import load_statistics
        from nfpi.priors.following import compute_beta
        from nfpi.priors.registry import find_relative_weight, is_fitted_to_means

        record = model.config.get("prior", {})
        metrics: dict[str, float | None] = {
            "training_distance": found.distance,
            "distance": test.own_distance,
            "prior_separation": found.prior_separation,
            "latent_separation": found.latent_separation,
            "relative_weight": find_relative_weight(record, *model.prior.mean.shape),
        }
        for scores in under_moments:
            metrics["mismatch"] = test.bits_per_dim - scores.bits_per_dim
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


def _measure_sampling_time(model: ClassConditionalFlow, count: int) -> float:
    """Return the wall-clock seconds per 1000 samples, measured on a batch of `count` after a warm-up batch."""
    from nfpi.sampling import balanced_labels, sample_images

    labels = balanced_labels(model.prior.num_classes, -(-count // model.prior.num_classes))[:count]
    seconds = 0.0
    for _ in range(2):
        began = time.monotonic()
        for _ in sample_images(model.flow, model.prior, labels, temperature=1.0, seed=model.seed, domain=model.domain):
            pass
        seconds = time.monotonic() - began
    return 1000 * seconds / len(labels)


def _read_training_time(history: Path | None) -> dict[str, float]:
    """Return the hours of the training and the median time per epoch, if its log is given."""
    # the cells of epochs of the initial state are empty
    seconds = [] if history is None else read_column(history, "seconds")
    return {"hours": sum(seconds) / 3600, "seconds_per_epoch": statistics.median(seconds)} if seconds else {}
