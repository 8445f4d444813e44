rule augment:
    """Make latent-augmented variants of the training images, by mixing latents of a class in the span of its PCA axes
    (NFA) or by noise of the same size."""
    input:
        unpack(planning.inputs(Augment)),
    output:
        **resolved.layout.list_files(AUGMENTED, Augment.outputs),
    log:
        jobs.log("augment", AUGMENTED),
    benchmark:
        jobs.benchmark("augment", AUGMENTED)
    priority: jobs.priority("augment")
    conda:
        ENVIRONMENT
    threads: jobs.threads("augment")
    resources:
        **jobs.resources("augment"),
    params:
        **planning.params(Augment),
    message:
        "Augment the latents of {wildcards.dataset} ({wildcards.variants}): {wildcards.flow}, {wildcards.prior},"
        " {params.weight}, seed {wildcards.seed}{params.changed}"
    shell:
        "exec nfpi --log {log:q} augment {params.settings:q} {params.execution:q} {params.paths:q}"
