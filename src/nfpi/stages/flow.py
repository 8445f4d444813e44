"""Run the stages of a flow: initial state, fit of the prior, training, and import of a released checkpoint."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from nfpi.config import FLOWS, PRIORS, TrainingConfig
from nfpi.config.priors import LearnedMethod
from nfpi.data.errors import DataError
from nfpi.data.store import ImageSet, read_image_set
from nfpi.model.trained import TrainedFlow
from nfpi.priors.files import load_prior, load_statistics, save_prior, save_statistics
from nfpi.priors.fixed_point import FixedPointDiverged, FixedPointResult
from nfpi.priors.registry import fit
from nfpi.release import load_release_checkpoint, make_release_config
from nfpi.results.recorded.logs import write_log, write_rows
from nfpi.results.recorded.records import config_hash
from nfpi.runtime.checkpoints import Checkpoints
from nfpi.runtime.device import Device
from nfpi.runtime.devices import make_device
from nfpi.runtime.divergence import Diverged, TrainingDiverged, mark_diverged
from nfpi.runtime.files import file_digest, run_after_commit, written_together
from nfpi.stages.fingerprints import compute_code_digest
from nfpi.stages.options import FitPrior, ImportRelease, StartFlow, TrainFlow
from nfpi.training.batches import TrainingData
from nfpi.training.loop import continue_training, start_training
from nfpi.training.state import TrainingState
from nfpi.training.tracking import require_tracker

logger = logging.getLogger(__name__)

RESIDUALS = ["iteration", "mean_residual", "variance_residual"]


def start_flow(stage: StartFlow) -> None:
    """Initialise the flow and its Gaussians, and train the epochs before the fit."""
    device = make_device(stage.training.precision, stage.devices)
    data = _read_training_data(stage.data, stage.training, device)
    header: dict[str, Any] = {"start": stage.start, "seed": stage.seed}
    kind, architecture = stage.flow.kind, FLOWS.extract_settings(stage.flow).model_dump(mode="json")
    settings = {
        **header,
        "flow": {"kind": kind, **architecture},
        "code": compute_code_digest(FLOWS[kind]),
        "training": stage.training.select_initial_state_settings(),
        "data": data.train.meta["sha256"],
    }
    checkpoints = Checkpoints(stage.output, config_hash(settings), stage.training.checkpoint_minutes)
    description = {"kind": kind, "shape": list(data.train.shape), "settings": architecture}
    try:
        with device.launch_processes() as processes:
            initial = start_training(data, description, stage.start, stage.seed, device, checkpoints, stage.output)
    except TrainingDiverged as fault:
        fault.context = {"seed": stage.seed, "training": stage.training.select_initial_state_settings()}
        _keep_divergence(stage, fault, device, checkpoints)
        return
    if not processes.first:
        return
    with written_together():
        save_prior(stage.get_path("prior"), initial.prior, {**header, "lambda": 0.0})
        save_statistics(stage.get_path("statistics"), initial.statistics, header)
        write_log(stage.get_path("history"), initial.state.log)
        initial.state.save(
            stage.get_path("state"), {**header, "devices": processes.count, "precision": device.precision}
        )
    run_after_commit(checkpoints.clear)


def fit_prior(stage: FitPrior) -> None:
    """Fit the Gaussians to the statistics of an initial state by the prior's method."""
    settings = PRIORS.extract_settings(stage.prior)
    try:
        initial, header = load_prior(stage.initial / "prior.safetensors")
        statistics = load_statistics(stage.initial / "statistics.safetensors")
    except Diverged as fault:  # of the training before the fit
        _record_divergence(stage, fault, [])
        return
    settings_json = stage.prior.model_dump(mode="json")
    header |= {"method": stage.prior.method, "lambda": stage.weight, "settings": settings_json}
    try:
        fitted = fit(stage.prior.method, statistics, initial, stage.weight, settings)
    except Diverged as fault:
        fault.context = {"seed": header.get("seed"), "prior": settings_json}
        _record_divergence(stage, fault, fault.residuals if isinstance(fault, FixedPointDiverged) else [])
        return
    residuals: list[Any] = []
    if isinstance(fitted, FixedPointResult):
        residuals = fitted.residuals.tolist()
        logger.info("λ = %g: %d iterations, converged: %s", stage.weight, fitted.iterations, fitted.converged)
        header |= {"iterations": fitted.iterations, "converged": fitted.converged}
    prior = fitted.prior if isinstance(fitted, FixedPointResult) else fitted
    with written_together():
        _write_residuals(stage, residuals)
        save_prior(stage.get_path("prior"), prior, header)


def _record_divergence(stage: FitPrior, fault: Diverged, residuals: list[Any]) -> None:
    with written_together():
        mark_diverged([stage.get_path("prior")], fault)
        _write_residuals(stage, residuals)
    logger.warning("%s", fault)


def _write_residuals(stage: FitPrior, residuals: list[Any]) -> None:
    rows = [dict(zip(RESIDUALS, (index, *pair), strict=True)) for index, pair in enumerate(residuals, 1)]
    write_rows(stage.get_path("iterations"), RESIDUALS, rows)


def train_flow(stage: TrainFlow) -> None:
    """Train the remaining epochs under Gaussians that are fixed or learned along with the flow."""
    learned, learning = None, {}
    if stage.learn is not None:
        learned = LearnedMethod.from_block(stage.learn, stage.weight)
        settings = stage.learn.model_dump(mode="json")
        learning = {"method": stage.learn.method, "lambda": stage.weight, "settings": settings}
    prior_code = compute_code_digest(PRIORS[stage.learn.method]) if stage.learn is not None else ""
    prior_file = stage.prior if stage.prior is not None else stage.initial / "prior.safetensors"
    state_file = stage.initial / "state.safetensors"
    prior, prior_header = load_prior(prior_file)
    device = make_device(stage.training.precision, stage.devices)
    data = _read_training_data(stage.data, stage.training, device)
    state, header = TrainingState.load(state_file, stage.training, data.steps_per_epoch, device.device)
    fingerprint = config_hash(
        {
            "training": stage.training.select_result_settings(),
            "code": compute_code_digest(FLOWS[state.flow.kind]),
            "state": file_digest(state_file),
            "prior": file_digest(prior_file),
            "data": data.train.meta["sha256"],
            **learning,
            **({"prior_code": prior_code} if prior_code else {}),
        }
    )
    checkpoints = Checkpoints(stage.output, fingerprint, stage.training.checkpoint_minutes)
    seed = state.seed
    try:
        with device.launch_processes() as processes:
            state = continue_training(state, prior, data, device, checkpoints, learned, stage.output)
    except TrainingDiverged as fault:
        fault.weight = stage.weight if learned is not None else prior_header.get("lambda")
        fault.context = {"seed": seed, "training": stage.training.select_result_settings()}
        _keep_divergence(stage, fault, device, checkpoints)
        return
    if not processes.first:
        return
    final = state.learner.prior if state.learner is not None else prior
    config = {
        "seed": state.seed,
        "start": header.get("start"),
        "step": state.step,
        "prior": {key: value for key, value in (prior_header | learning).items() if key not in ("start", "seed")},
        "training": stage.training.model_dump() | {"precision": device.precision},
        "data": _select_metadata(data.train),
        "devices": processes.count,
    }
    if len(state.precisions) > 1:  # it changed when the training was resumed; `training.precision` is the last
        config["precisions"] = state.precision_parts
    with written_together():
        write_log(stage.get_path("history"), state.log)
        TrainedFlow(state.averaged_flow, final, config).write(stage.get_path("config").parent)
    run_after_commit(checkpoints.clear)


def _keep_divergence(
    stage: StartFlow | TrainFlow, fault: TrainingDiverged, device: Device, checkpoints: Checkpoints
) -> None:
    """Write the log of a diverged training and, as a rerun would diverge again, outputs that record the divergence.

    Raises:
        ArithmeticError: in all processes but the first, which writes the files.
    """
    if not device.processes.first:
        raise ArithmeticError(str(fault))
    with written_together():
        mark_diverged([path for path in stage.list_output_paths() if path != stage.get_path("history")], fault)
        write_log(stage.get_path("history"), fault.log)
    run_after_commit(checkpoints.clear)
    logger.warning("%s", fault)


def import_release(stage: ImportRelease) -> None:
    """Convert the weights and Gaussians of a released checkpoint."""
    flow, prior = load_release_checkpoint(stage.checkpoint, stage.averaged)
    train = read_image_set(stage.data / "train", verify=False)
    if (flow.shape, prior.num_classes) != (train.shape, train.num_classes):
        raise DataError(
            f"{stage.data}: expected images {flow.shape} of {prior.num_classes} classes as in {stage.checkpoint}, "
            f"received {train.shape} of {train.num_classes}"
        )
    config = make_release_config(stage.checkpoint, stage.averaged, _select_metadata(train))
    TrainedFlow(flow, prior, config).write(stage.get_path("config").parent)


def _read_training_data(folder: Path, config: TrainingConfig, device: Device) -> TrainingData:
    require_tracker(config)
    train, validation = (read_image_set(folder / split) for split in ("train", "validation"))
    return TrainingData(train, validation if len(validation) else None, config, device.device, device.processes)


def _select_metadata(train: ImageSet) -> dict[str, Any]:
    """Return the part of the training images' metadata that later stages need."""
    return {key: train.meta[key] for key in ("name", "classes", "dtype", "extra")}
