from snakemake.exceptions import WorkflowError

from nfpi.config import ConfigError, resolve


configfile: "config.yaml"


try:
    PRESET, RESULTS, SETTINGS = resolve(config, overrides=workflow.config_settings.overwrite_config)
except ConfigError as error:
    raise WorkflowError(f"config: {error}") from None


report: "workflow/report/workflow.rst"


include: "workflow/rules/common.smk"
include: "workflow/rules/targets.smk"
include: "workflow/rules/resources.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/flow.smk"
include: "workflow/rules/prior.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/generate.smk"
include: "workflow/rules/augment.smk"
include: "workflow/rules/classify.smk"
include: "workflow/rules/tables.smk"
include: "workflow/rules/figures.smk"
include: "workflow/rules/benchmark.smk"
include: "workflow/rules/cluster.smk"


rule all:
    default_target: True
    input:
        target_of(*targets()),


rule demo:
    input:
        target_of("table2", preset="demo"),


rule table1:
    input:
        target_of("table1"),


rule table2:
    input:
        target_of("table2"),


rule table3:
    input:
        target_of("table3"),


rule table4:
    input:
        target_of("table4"),


rule table5:
    input:
        target_of("table5"),


rule table6:
    input:
        target_of("table6"),


rule figure1:
    input:
        target_of("figure1"),


rule figure2:
    input:
        target_of("figure2"),


rule samples:
    input:
        target_of("samples"),


rule residuals:
    input:
        target_of("residuals"),


rule convergence_map:
    input:
        target_of("convergence_map"),
