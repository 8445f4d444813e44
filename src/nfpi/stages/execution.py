"""Execute a stage: under a lock, on complete inputs of the same run, committing all outputs at once."""

from __future__ import annotations

import logging

from nfpi.config.base import ConfigError
from nfpi.config.extensions import list_loaded_digests
from nfpi.runs import Run
from nfpi.runtime.chains import Chain
from nfpi.runtime.divergence import Diverged
from nfpi.runtime.files import remove_remains, require_writable, written_together
from nfpi.runtime.job_log import is_first_process, print_line, writes_log
from nfpi.runtime.locks import locked
from nfpi.runtime.manifests import ManifestError, find_faults, write_manifest
from nfpi.stages.base import Command, Stage
from nfpi.stages.jobs import MANIFEST
from nfpi.stages.keys import SettingsKeys

logger = logging.getLogger(__name__)


def execute(command: Command) -> None:
    """Run a command."""
    if isinstance(command, Stage) and is_first_process():
        _run_stage(command)
    else:  # not a stage, or a further process of a training, which writes no files
        command.run()


def _run_stage(stage: Stage) -> None:
    """Run a stage, and write its manifest; if a fit or training diverged, here or before, the outputs record it.

    The outputs appear together, followed by the manifest; no other stage reads them before that.

    If another process holds the lock, a command given by hand fails. A job of the workflow waits instead, since the
    other process may be the same job, submitted before Snakemake was killed. The outputs of that process are accepted
    if they have the key of this job; otherwise the stage runs, resuming from the last checkpoint.

    Raises:
        ConfigError: the settings, the inputs or the user's files are not those that the command was written with.
        ManifestError: an input is damaged or outdated, or two inputs do not belong together.
        LockedError: another process runs this stage, and this is not a job of the workflow.
        Diverged: a fit or training diverged, and the stage declares no outputs that could record it.
        OSError: the outputs cannot be written.
    """
    if not set(stage.code or ()) <= set(list_loaded_digests()):
        raise ConfigError("--extensions: expected the files with the digests in `code`, received changed ones")
    require_writable(stage.output)
    announce = (lambda line: print_line(f"nfpi: {line}")) if writes_log() else None
    with locked(stage.lock, stage.command, announce) as has_waited:
        for path in stage.list_output_paths():
            remove_remains(path)
        if has_waited and stage.key and _is_made(stage):
            logger.info("%s: the other process has made it", stage.output)
            stage.finish()  # in case it was killed before it did
            return
        _check_inputs(stage)
        try:
            with written_together():
                stage.run()
                keys = {found.name: found.key for found in stage.traced}
                if any(stage.digest_source(name) != keys[name] for name in stage.list_sources()):
                    raise ManifestError(f"{stage.output}: expected files that stay, received changed ones: try again")
        except Diverged as fault:
            if not stage.outputs:
                raise
            with written_together():
                stage.record_divergence(fault)
            logger.warning("%s", fault)
        if stage.product:
            write_manifest(
                stage.get_path(MANIFEST),
                stage.command,
                stage.product,
                stage.list_output_paths(),
                key=stage.own_key,
                timed=[stage.get_path(name) for name in stage.timed],
                temporary=stage.temporary,
                settings=stage.declaration,
                inputs=stage.traced,
            )
        stage.finish()


def _check_inputs(stage: Stage) -> None:
    """Check that settings and inputs are those that the command was written with, and that the inputs belong together.

    Raises:
        ConfigError: the settings or the inputs are others.
        ManifestError: an input is damaged, outdated, or made from another product than a further input.
        OSError: an input cannot be read.
    """
    chain = SettingsKeys() if stage.many_runs else Chain()
    for found in stage.traced:
        fault = chain.find_first_fault(stage.output / found.path) if found.path else ""
        if fault:
            raise ManifestError(f"{fault}: `snakemake` with its target makes it again")
    if not stage.many_runs:
        chain.check_together(stage.traced, stage.output)
    _check_identity(stage, chain)
    if stage.key and stage.key != stage.own_key:
        raise ConfigError(
            f"{stage.output}: expected the settings and inputs of the call that planned this job, received changed "
            "ones: set them back, or call snakemake again; by hand, leave out --key"
        )


def _check_identity(stage: Stage, chain: Chain) -> None:
    """Check that the inputs are of the seed and the λ of the stage's run, if it has one.

    Raises:
        ManifestError: an input is of another run.
    """
    identity = getattr(stage, "identity", None)
    run = {} if identity is None else Run.from_json(identity).to_json()
    places = [stage.output / found.path for found in stage.traced if found.path and not found.apart] if run else []
    for place in dict.fromkeys([*places, *(below for path in places for below, _ in chain.walk(path))]):
        manifest = chain.read(place)
        settings = {} if manifest is None else manifest.settings
        weight = settings.get("weight") if "learn" not in settings else None  # whose Gaussians are an input
        known = {"seed": settings.get("seed"), "lambda": weight, **(settings.get("identity") or {})}
        for name in ("seed", "lambda"):
            if name in run and known[name] not in (None, run[name]):
                raise ManifestError(
                    f"{stage.output}: expected inputs with {name} = {run[name]} like the run, received {known[name]}"
                )


def _is_made(stage: Stage) -> bool:
    """Return whether the outputs are there, intact, and have the key that is expected of them."""
    path = stage.get_path(MANIFEST)
    manifest = Chain().read(path)
    if manifest is None or manifest.key != stage.key or find_faults(path)[1]:
        return False
    return all((path.parent / name).is_file() for name in manifest.files)
