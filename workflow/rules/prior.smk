rule fit_prior:
    """Fit the class Gaussians to the statistics of the latents by fixed-point iteration."""
    input:
        statistics=start_file("statistics.safetensors"),
        initial=start_file("prior.safetensors"),
    output:
        prior=f"{LEAF}/fit/prior.safetensors",
        iterations=f"{LEAF}/fit/fixed_point.csv",
    log:
        log_of("fit_prior", LEAF),
    benchmark:
        benchmark_of("fit_prior", LEAF)
    conda:
        "../../environment.yml"
    threads: threads_of("fit_prior")
    resources:
        **resources_of("fit_prior"),
    params:
        prior=prior_settings,
    message:
        "Fit the Gaussians of {wildcards.dataset}: {wildcards.prior}, λ = {wildcards.lam}, seed {wildcards.seed}"
    shell:
        "exec nfpi fit-prior --statistics {input.statistics:q} --initial {input.initial:q}"
        " --prior {params.prior:q} --weight {wildcards.lam} --output {output.prior:q}"
        " --iterations {output.iterations:q} > {log:q} 2>&1"
