localrules:
    prepare_data,


rule prepare_data:
    """Download or find a data set, split it, and write it in the one form that all stages read."""
    output:
        **splits(*SPLIT_NAMES),
    log:
        log_of("prepare_data", SPLITS),
    benchmark:
        benchmark_of("prepare_data", SPLITS)
    conda:
        "../../environment.yml"
    threads: threads_of("prepare_data")
    resources:
        **resources_of("prepare_data"),
    params:
        dataset=dataset_settings,
        compared=dataset_content,
        downloads=f"{RESULTS.as_posix()}/downloads",
        folder=subpath(output.train_images, ancestor=2),
    message:
        "Prepare {wildcards.dataset}"
    shell:
        "exec nfpi prepare-data --name {wildcards.dataset:q} --dataset {params.dataset:q}"
        " --download-folder {params.downloads:q} --output {params.folder:q} > {log:q} 2>&1"
