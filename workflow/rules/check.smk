rule check_device:
    """Check a machine for trainings by nfpi check-device, with the resources of train_flow for half an hour."""
    log:
        f"{resolved.results.as_posix()}/check-device/{resolved.preset}.log",
    conda:
        ENVIRONMENT
    threads: jobs.threads("train_flow")
    resources:
        **jobs.resources("train_flow", runtime=30),
    params:
        config_file=shorten_path(ROOT / "config.yaml"),
        config=lambda wildcards: json.dumps(config),  # in a text, Snakemake would replace `${NAME}`
    message:
        "Check a device for the trainings of preset {resolved.preset}"
    shell:
        "exec nfpi --log {log:q} check-device --config-file {params.config_file:q} --config {params.config:q}"
