rule costs:
    """Sum up time and memory of the finished jobs by table, stage and device; no other jobs are run."""
    log:
        f"{plan.layout.root.as_posix()}/logs/costs.log",
    localrule: True
    conda:
        ENVIRONMENT
    params:
        root=plan.layout.root,
        extensions=planning.extensions,
    message:
        "Add up times and memory"
    shell:
        "exec nfpi --log {log:q} costs {params.root:q} {params.extensions:q}"
