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
        model=subpath(input.config, parent=True),
        per_class=params.images_per_class,
        code=params.code("flow"),
        batch_size=params.generation_batch_size,
        extensions=params.extension_options,
        folder=subpath(output.images, parent=True),
    message:
        "Generate images like {wildcards.dataset}: {wildcards.flow}, {wildcards.prior}, λ = {wildcards.weight},"
        " seed {wildcards.seed}, temperature {wildcards.temperature}"
    shell:
        "exec nfpi --log {log:q} generate --model {params.model:q} --temperature {wildcards.temperature}"
        " --per-class {params.per_class} --batch-size {params.batch_size} --seed {wildcards.seed}"
        " {params.extensions:q} --output {params.folder:q}"
