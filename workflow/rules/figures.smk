localrules:
    accuracy_against_weight,
    draw_embedding,
    draw_residuals,
    draw_convergence_map,


rule accuracy_against_weight:
    """Draw table 2: NF-Acc and CNN-Acc against λ."""
    input:
        table=f"{ROOT}/tables/table2.csv",
    output:
        **figure("accuracy_against_weight", "accuracy against λ"),
    log:
        log_of("figure", f"{FIGURES}/accuracy_against_weight"),
    benchmark:
        benchmark_of("figure", f"{FIGURES}/accuracy_against_weight")
    conda:
        "../../environment.yml"
    threads: threads_of("figure")
    resources:
        **resources_of("figure", gpu=0),
    params:
        stem=subpath(output.png, strip_suffix=".png"),
    message:
        "Draw accuracy against λ"
    shell:
        "exec nfpi figure --name accuracy_against_weight --output {params.stem:q} {input.table:q} > {log:q} 2>&1"


rule embed:
    """Embed images in the plane (t-SNE) and fit their classes' Gaussians there."""
    input:
        data_of_figure("figure1", "train"),
    output:
        table=f"{FIGURES}/embedding.csv",
    log:
        log_of("embed", f"{FIGURES}/embedding"),
    benchmark:
        benchmark_of("embed", f"{FIGURES}/embedding")
    conda:
        "../../environment.yml"
    threads: threads_of("analyse")
    resources:
        **resources_of("analyse"),
    params:
        data=splits_of_figure("figure1"),
        figure=figure_settings("figure1"),
    message:
        "Embed images"
    shell:
        "exec nfpi embed --data {params.data:q} --figure {params.figure:q} --output {output.table:q} > {log:q} 2>&1"


rule draw_embedding:
    """Draw figure 1: images, their classes' Gaussians, and what the fixed point makes of these."""
    input:
        table=f"{FIGURES}/embedding.csv",
    output:
        **figure("{drawing}", "{drawing}", caption="figure1"),
    log:
        log_of("figure", f"{FIGURES}/{{drawing}}"),
    benchmark:
        benchmark_of("figure", f"{FIGURES}/{{drawing}}")
    wildcard_constraints:
        drawing="figure1|figure1_full",
    conda:
        "../../environment.yml"
    threads: threads_of("figure")
    resources:
        **resources_of("figure", gpu=0),
    params:
        stem=subpath(output.png, strip_suffix=".png"),
    message:
        "Draw {wildcards.drawing}"
    shell:
        "exec nfpi figure --name {wildcards.drawing} --output {params.stem:q} {input.table:q} > {log:q} 2>&1"


rule draw_augmentations:
    """Draw figure 2: images beside latent-augmented variants of them."""
    input:
        data=data_of_figure("figure2", "train"),
        flow=leaf_of_figure("figure2", "flow.safetensors"),
    output:
        **figure("figure2", "figure2"),
    log:
        log_of("figure", f"{FIGURES}/figure2"),
    benchmark:
        benchmark_of("figure", f"{FIGURES}/figure2")
    conda:
        "../../environment.yml"
    threads: threads_of("figure")
    resources:
        **resources_of("figure"),
    params:
        data=splits_of_figure("figure2"),
        nfa=nfa_of_figure("figure2"),
        figure=figure_settings("figure2"),
        stem=subpath(output.png, strip_suffix=".png"),
    message:
        "Draw latent augmentations"
    shell:
        "exec nfpi draw-augmentations --data {params.data:q} --flow {input.flow:q} --nfa {params.nfa:q}"
        " --figure {params.figure:q} --output {params.stem:q} > {log:q} 2>&1"


rule draw_samples:
    """Draw images of each class at several temperatures."""
    input:
        flow=leaf_of_figure("samples", "flow.safetensors"),
        prior=leaf_of_figure("samples", "prior.safetensors"),
    output:
        **figure("samples", "samples"),
    log:
        log_of("figure", f"{FIGURES}/samples"),
    benchmark:
        benchmark_of("figure", f"{FIGURES}/samples")
    conda:
        "../../environment.yml"
    threads: threads_of("figure")
    resources:
        **resources_of("figure"),
    params:
        figure=figure_settings("samples"),
        stem=subpath(output.png, strip_suffix=".png"),
    message:
        "Draw samples"
    shell:
        "exec nfpi draw-samples --flow {input.flow:q} --prior {input.prior:q} --figure {params.figure:q}"
        " --output {params.stem:q} > {log:q} 2>&1"


rule draw_residuals:
    """Draw the residual of the fixed-point iteration against the iteration."""
    input:
        fits=fits_of_residuals,
    output:
        **figure("residuals", "residuals of the fixed point"),
    log:
        log_of("figure", f"{FIGURES}/residuals"),
    benchmark:
        benchmark_of("figure", f"{FIGURES}/residuals")
    conda:
        "../../environment.yml"
    threads: threads_of("figure")
    resources:
        **resources_of("figure", gpu=0),
    params:
        figure=figure_settings("residuals"),
        prior=prior_of_figure("residuals"),
        stem=subpath(output.png, strip_suffix=".png"),
    message:
        "Draw residuals of the fixed point"
    shell:
        "exec nfpi figure --name residuals --figure {params.figure:q} --prior {params.prior:q}"
        " --output {params.stem:q} {input.fits:q} > {log:q} 2>&1"


rule map_convergence:
    """Try where the fixed-point iteration converges: λ, update, scale, what is fitted."""
    input:
        statistics=start_of_figure("convergence_map", "statistics.safetensors"),
        initial=start_of_figure("convergence_map", "prior.safetensors"),
    output:
        table=f"{FIGURES}/convergence_map.csv",
    log:
        log_of("map_convergence", f"{FIGURES}/convergence_map"),
    benchmark:
        benchmark_of("map_convergence", f"{FIGURES}/convergence_map")
    conda:
        "../../environment.yml"
    threads: threads_of("analyse")
    resources:
        **resources_of("analyse"),
    params:
        figure=figure_settings("convergence_map"),
    message:
        "Map the convergence of the fixed point"
    shell:
        "exec nfpi map-convergence --statistics {input.statistics:q} --initial {input.initial:q}"
        " --figure {params.figure:q} --output {output.table:q} > {log:q} 2>&1"


rule draw_convergence_map:
    """Draw where the fixed-point iteration converges."""
    input:
        table=f"{FIGURES}/convergence_map.csv",
    output:
        **figure("convergence_map", "map of convergence"),
    log:
        log_of("figure", f"{FIGURES}/convergence_map"),
    benchmark:
        benchmark_of("figure", f"{FIGURES}/convergence_map")
    conda:
        "../../environment.yml"
    threads: threads_of("figure")
    resources:
        **resources_of("figure", gpu=0),
    params:
        stem=subpath(output.png, strip_suffix=".png"),
    message:
        "Draw the map of convergence"
    shell:
        "exec nfpi figure --name convergence_map --output {params.stem:q} {input.table:q} > {log:q} 2>&1"
