localrules:
    accuracy_against_weight,


rule accuracy_against_weight:
    """Draw table 2: NF-Acc and CNN-Acc against λ."""
    input:
        table=f"{ROOT}/tables/table2.csv",
    output:
        png=report(
            f"{ROOT}/figures/accuracy_against_weight.png",
            caption="../report/accuracy_against_weight.rst",
            category="Figures",
            labels={"figure": "accuracy against λ"},
        ),
        pdf=f"{ROOT}/figures/accuracy_against_weight.pdf",
    log:
        log_of("figure", f"{ROOT}/figures/accuracy_against_weight"),
    benchmark:
        benchmark_of("figure", f"{ROOT}/figures/accuracy_against_weight")
    conda:
        "../../environment.yml"
    threads: threads_of("figure")
    resources:
        **resources_of("figure"),
    params:
        stem=subpath(output.png, strip_suffix=".png"),
    message:
        "Draw accuracy against λ"
    shell:
        "exec nfpi figure --name accuracy_against_weight --metrics {input.table:q} --output {params.stem:q} > {log:q} 2>&1"
