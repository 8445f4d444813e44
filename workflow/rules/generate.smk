rule generate:
    """Draw labelled images from a flow."""
    input:
        flow=f"{LEAF}/flow.safetensors",
        prior=f"{LEAF}/prior.safetensors",
    output:
        **images_in(GENERATED),
    log:
        log_of("generate", GENERATED),
    benchmark:
        benchmark_of("generate", GENERATED)
    conda:
        "../../environment.yml"
    threads: threads_of("generate")
    resources:
        **resources_of("generate"),
    params:
        per_class=generation_setting("per_class"),
        batch_size=generation_setting("batch_size"),
        folder=subpath(output.images, parent=True),
    message:
        "Generate images like {wildcards.dataset}: {wildcards.prior}, λ = {wildcards.lam},"
        " seed {wildcards.seed}, temperature {wildcards.temperature}"
    shell:
        "exec nfpi generate --flow {input.flow:q} --prior {input.prior:q} --temperature {wildcards.temperature}"
        " --per-class {params.per_class} --batch-size {params.batch_size} --seed {wildcards.seed}"
        " --output {params.folder:q} > {log:q} 2>&1"
