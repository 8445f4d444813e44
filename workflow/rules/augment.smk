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
        data=subpath(input.train_images, ancestor=2),
        model=subpath(input.config, parent=True),
        nfa=params.nfa,
        displacement=params.displacement,
        code=params.code("flow"),
        extensions=params.extension_options,
        folder=subpath(output.images, parent=True),
    message:
        "Augment the latents of {wildcards.dataset} ({params.displacement}): {wildcards.flow}, {wildcards.prior},"
        " λ = {wildcards.weight}, seed {wildcards.seed}"
    shell:
        "exec nfpi --log {log:q} augment --data {params.data:q} --model {params.model:q} --nfa {params.nfa:q}"
        " --displacement {params.displacement} --seed {wildcards.seed}"
        " {params.extensions:q} --output {params.folder:q}"
