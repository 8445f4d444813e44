rule generate:
    """Draw labelled images from a flow."""
    input:
        **plan.model(),
    output:
        **plan.outputs(Generate, GENERATED),
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
        **declarations.of(Generate),
        model=subpath(input.config, parent=True),
        folder=subpath(output.images, parent=True),
    message:
        "Generate images like {wildcards.dataset}: {wildcards.flow}, {wildcards.prior}, λ = {wildcards.weight},"
        " seed {wildcards.seed}, temperature {wildcards.temperature}{params.changed}"
    shell:
        "exec nfpi --log {log:q} generate {params.settings:q} {params.execution:q}"
        " --model {params.model:q} --output {params.folder:q}"
