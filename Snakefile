from snakemake.exceptions import WorkflowError

from nfpi.config import ConfigError, resolve


configfile: "config.yaml"


try:
    PRESET, RESULTS, SETTINGS = resolve(config, overrides=workflow.config_settings.overwrite_config)
except ConfigError as error:
    raise WorkflowError(f"config: {error}") from None


report: "workflow/report/workflow.rst"


include: "workflow/rules/common.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/flow.smk"
include: "workflow/rules/prior.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/generate.smk"
include: "workflow/rules/classify.smk"
include: "workflow/rules/tables.smk"
include: "workflow/rules/figures.smk"
include: "workflow/rules/benchmark.smk"


rule all:
    default_target: True
    input:
        [file for table in SETTINGS.tables for file in target(table)],


rule table2:
    input:
        target_of("table2"),


rule demo:
    input:
        target_of("table2", preset="demo"),
