rule generate:
    """Draw labelled images from a flow."""
    input:
        unpack(planning.inputs(Generate)),
    output:
        **resolved.layout.list_files(GENERATED, Generate.outputs),
    log:
        jobs.log("generate", GENERATED),
    benchmark:
        jobs.benchmark("generate", GENERATED)
    priority: jobs.priority("generate")
    conda:
        ENVIRONMENT
    threads: jobs.threads("generate")
    resources:
        **jobs.resources("generate"),
    params:
        **planning.params(Generate),
    message:
        "Generate images like {wildcards.dataset}: {wildcards.flow}, {wildcards.prior}, {params.weight},"
        " seed {wildcards.seed}, temperature {wildcards.temperature}{params.changed}"
    shell:
        "exec nfpi --log {log:q} generate {params.settings:q} {params.execution:q} {params.paths:q}"
