rule augment:
    """Make latent-augmented variants of the training images, by mixing latents of a class in the span of its PCA axes
    (NFA) or by noise of the same size."""
    input:
        **plan.splits("train"),
        **plan.model(),
    output:
        **plan.outputs(Augment, AUGMENTED),
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
        **declarations.of(Augment),
        data=subpath(input.train_images, ancestor=2),
        model=subpath(input.config, parent=True),
        folder=subpath(output.images, parent=True),
    message:
        "Augment the latents of {wildcards.dataset} ({wildcards.variants}): {wildcards.flow}, {wildcards.prior},"
        " λ = {wildcards.weight}, seed {wildcards.seed}{params.changed}"
    shell:
        "exec nfpi --log {log:q} augment {params.settings:q} {params.execution:q}"
        " --data {params.data:q} --model {params.model:q} --output {params.folder:q}"
