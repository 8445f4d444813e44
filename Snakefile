import json
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.logging import logger
from snakemake.utils import available_cpu_count

from nfpi.config import ConfigError, resolve
from nfpi.config.base import NAME
from nfpi.results.tables.columns import check_tables
from nfpi.runs import (
    AUGMENTED,
    CANDIDATE,
    FIT,
    FLOW_RUN,
    GENERATED,
    GENERATED_CLASSIFIER,
    INITIAL,
    MEASURED_SAMPLES,
    OWN,
    REAL_CLASSIFIER,
    REFERENCE_AUGMENTATION,
    SPLITS,
    TRAINED_CLASSIFIER,
)
from nfpi.runtime.locks import LockedError
from nfpi.stages.evaluate import Evaluate
from nfpi.stages.generate import Augment, Generate
from nfpi.stages.models import ImportModel, RefitPrior
from nfpi.stages.prepare_data import DownloadWeights, EncodeData, ExtractFeatures, PrepareData
from nfpi.stages.tables_and_figures import JudgeClaims, MakeFigure, MakeTable
from nfpi.stages.test_classifier import MeasureSamples, TestClassifier
from nfpi.stages.train_classifier import TrainClassifier
from nfpi.stages.train_flow import FitPrior, StartFlow, TrainFlow
from nfpi.workflow import Jobs, Patterns, Planning, Targets
from nfpi.workflow.internals import (
    find_rules_with_jobs,
    force,
    let_keys_decide,
    list_requested_targets,
    prepare_submission,
    unlock,
    use_this_machine,
)
from nfpi.workflow.targets import shorten_path
from nfpi.workflow.records import (
    check_preset_file,
    describe_present_results,
    lock_results,
    record_call,
    record_preset_file,
    write_page_at_end,
)
from nfpi.workflow.terminal import BEFORE_LEAVING, OURS, announce, show_at_end

ROOT = Path(workflow.basedir)
BEFORE_LEAVING.append(lambda: unlock(workflow))

# Without the directive `configfile`, `config` contains only what the user gave by --config and --configfile, which
# overrides config.yaml and the preset.
try:
    resolved = resolve(ROOT / "config.yaml", ROOT / "presets", config)
    check_tables(resolved.config)
except ConfigError as error:
    raise WorkflowError(f"config: {error}") from None

if workflow.is_main_process:
    try:
        check_preset_file(resolved)
    except ConfigError as error:
        raise WorkflowError(str(error)) from None

patterns, jobs, targets = Patterns(resolved.config), Jobs(resolved), Targets(resolved)
planning = Planning(
    resolved,
    reference=Path(shorten_path(ROOT / "workflow/reference/paper.csv")),
    force=(lambda path: force(workflow, path)) if workflow.is_main_process else None,
)
ENVIRONMENT = ROOT / "environment.yml"

let_keys_decide()
use_this_machine(workflow, available_cpu_count())


resource_scopes:
    local_gpu="local",


wildcard_constraints:
    **patterns.wildcard_constraints(),


include: "workflow/rules/data.smk"
include: "workflow/rules/flow.smk"
include: "workflow/rules/prior.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/generate.smk"
include: "workflow/rules/augment.smk"
include: "workflow/rules/classify.smk"
include: "workflow/rules/tables.smk"
include: "workflow/rules/claims.smk"
include: "workflow/rules/figures.smk"
include: "workflow/rules/benchmark.smk"
include: "workflow/rules/check.smk"


try:
    prepare_submission(workflow, jobs)
except ConfigError as error:
    raise WorkflowError(f"config: {error}") from None


if workflow.is_main_process:
    show_at_end(
        logger,
        lambda: describe_present_results(
            planning, targets, list_requested_targets(workflow), is_dry_run=workflow.dryrun
        ),
    )


onstart:
    try:
        lock_results(resolved.layout.root)
        check_preset_file(resolved)  # again, as another call may have begun meanwhile
        planning.check()
    except (LockedError, ConfigError, OSError) as error:
        raise WorkflowError(str(error)) from None
    record_preset_file(resolved)
    record_call(resolved, list_requested_targets(workflow), planning.keys.known)
    announce(logger, find_rules_with_jobs(workflow))


onsuccess:
    logger.info(targets.describe(list_requested_targets(workflow)), extra=OURS)
    write_page_at_end(logger, resolved)


onerror:
    write_page_at_end(logger, resolved)


rule all:
    default_target: True
    input:
        targets.files(*targets.names),


for name in targets.names:

    rule:
        name:
            name
        input:
            targets.files(name),


rule unknown_target:
    """Raise an error that lists the known targets if an unknown one is requested."""
    input:
        targets.reject_unknown(["benchmark", "check_device"]),
    output:
        "{target}",
    wildcard_constraints:
        target=NAME.strip("^$"),
