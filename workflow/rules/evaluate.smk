rule evaluate:
    """Classify real images with a flow (NF-Acc, top-5) and measure its bits/dim."""
    input:
        **splits("validation", "test"),
        flow=f"{LEAF}/flow.safetensors",
        prior=f"{LEAF}/prior.safetensors",
    output:
        metrics=f"{LEAF}/metrics.json",
    log:
        log_of("evaluate", LEAF),
    benchmark:
        benchmark_of("evaluate", LEAF)
    conda:
        "../../environment.yml"
    threads: threads_of("evaluate")
    resources:
        **resources_of("evaluate"),
    params:
        data=subpath(input.test_images, ancestor=2),
        evaluation=settings("evaluation"),
    message:
        "Evaluate a flow on {wildcards.dataset}: {wildcards.prior}, λ = {wildcards.lam}, seed {wildcards.seed}"
    shell:
        "exec nfpi evaluate --data {params.data:q} --flow {input.flow:q} --prior {input.prior:q}"
        " --evaluation {params.evaluation:q} --output {output.metrics:q} > {log:q} 2>&1"
