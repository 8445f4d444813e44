rule augment:
    """Make variants of the training images by mixing latents of one class in the span of its PCA axes (NFA)."""
    input:
        **splits("train"),
        flow=f"{LEAF}/flow.safetensors",
    output:
        **images_in(AUGMENTED),
    log:
        log_of("augment", AUGMENTED),
    benchmark:
        benchmark_of("augment", AUGMENTED)
    conda:
        "../../environment.yml"
    threads: threads_of("augment")
    resources:
        **resources_of("augment"),
    params:
        data=subpath(input.train_images, ancestor=2),
        nfa=settings("nfa"),
        folder=subpath(output.images, parent=True),
    message:
        "Augment the latents of {wildcards.dataset}: {wildcards.prior}, λ = {wildcards.lam}, seed {wildcards.seed}"
    shell:
        "exec nfpi augment --data {params.data:q} --flow {input.flow:q} --nfa {params.nfa:q} --seed {wildcards.seed}"
        " --output {params.folder:q} > {log:q} 2>&1"
