localrules:
    costs,


rule costs:
    """Say what the jobs that have ended took, by table, stage and device; nothing is run for it."""
    log:
        f"{plan.layout.root.as_posix()}/logs/costs.log",
    conda:
        ENVIRONMENT
    params:
        root=plan.layout.root,
    message:
        "Add up times and memory"
    shell:
        "exec nfpi --log {log:q} costs {params.root:q} --output {params.root:q}"
