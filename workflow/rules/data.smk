localrules:
    prepare_data,
    download_weights,


WITH_VAE = [name for name, dataset in SETTINGS.datasets.items() if dataset.vae]
"""Data sets of which the flow sees an autoencoder's latents."""


rule prepare_data:
    """Download or find a data set, split it, and write it in the one form that all stages read."""
    output:
        **splits(*SPLIT_NAMES),
    log:
        log_of("prepare_data", SPLITS),
    benchmark:
        benchmark_of("prepare_data", SPLITS)
    wildcard_constraints:
        dataset="|".join(re.escape(name) for name in SETTINGS.datasets if name not in WITH_VAE) or "(?!)",
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


rule encode_data:
    """Find a data set's image files, split them, and write their latents under an autoencoder."""
    output:
        **splits(*SPLIT_NAMES),
    log:
        log_of("encode_data", SPLITS),
    benchmark:
        benchmark_of("encode_data", SPLITS)
    wildcard_constraints:
        dataset="|".join(map(re.escape, WITH_VAE)) or "(?!)",
    conda:
        "../../environment.yml"
    threads: threads_of("encode_data")
    resources:
        **resources_of("encode_data"),
    params:
        dataset=dataset_settings,
        compared=dataset_content,
        downloads=f"{RESULTS.as_posix()}/downloads",
        folder=subpath(output.train_images, ancestor=2),
    message:
        "Encode {wildcards.dataset}"
    shell:
        "exec nfpi encode-data --name {wildcards.dataset:q} --dataset {params.dataset:q} --workers {threads}"
        " --download-folder {params.downloads:q} --output {params.folder:q} > {log:q} 2>&1"


rule download_weights:
    """Fetch published weights; the machines that train may have no internet."""
    output:
        weights=f"{RESULTS.as_posix()}/downloads/{{model}}.safetensors",
    log:
        f"{RESULTS.as_posix()}/downloads/{{model}}.log",
    benchmark:
        f"{RESULTS.as_posix()}/downloads/{{model}}.tsv"
    wildcard_constraints:
        model="eva02",
    conda:
        "../../environment.yml"
    threads: threads_of("prepare_data")
    resources:
        **resources_of("prepare_data"),
    message:
        "Download the weights of {wildcards.model}"
    shell:
        "exec nfpi download-weights --model {wildcards.model} --output {output.weights:q} > {log:q} 2>&1"
