rule train_classifier:
    """Train a classifier on generated images."""
    input:
        **splits("train", "validation"),
        **images_in(GENERATED, "generated_"),
    output:
        model=f"{CLASSIFIER}/model.safetensors",
        metrics=f"{CLASSIFIER}/metrics.json",
        history=f"{CLASSIFIER}/log.csv",
    log:
        log_of("train_classifier", CLASSIFIER),
    benchmark:
        benchmark_of("train_classifier", CLASSIFIER)
    conda:
        "../../environment.yml"
    threads: threads_of("train_classifier")
    resources:
        **resources_of("train_classifier"),
    params:
        data=subpath(input.train_images, ancestor=2),
        generated=subpath(input.generated_images, parent=True),
        classifier=classifier_settings(to_run=True),
        compared=classifier_settings(to_run=False),
        folder=subpath(output.model, parent=True),
    message:
        "Train {wildcards.classifier} for {wildcards.dataset}: {wildcards.prior}, λ = {wildcards.lam},"
        " seed {wildcards.seed}, temperature {wildcards.temperature}"
    shell:
        "exec nfpi train-classifier --data {params.data:q} --generated {params.generated:q} --name {wildcards.classifier}"
        " --classifier {params.classifier:q} --seed {wildcards.seed} --output {params.folder:q} > {log:q} 2>&1"


rule test_classifier:
    """Pick the temperature whose classifier is best on the validation split, and test that one (CNN-Acc)."""
    input:
        **splits("test"),
        models=candidate_files("model.safetensors"),
        metrics=candidate_files("metrics.json"),
    output:
        metrics=f"{LEAF}/{{classifier}}/metrics.json",
    log:
        log_of("test_classifier", f"{LEAF}/{{classifier}}"),
    benchmark:
        benchmark_of("test_classifier", f"{LEAF}/{{classifier}}")
    conda:
        "../../environment.yml"
    threads: threads_of("test_classifier")
    resources:
        **resources_of("test_classifier"),
    params:
        data=subpath(input.test_images, ancestor=2),
        candidates=candidates,
    message:
        "Test the best {wildcards.classifier} for {wildcards.dataset}: {wildcards.prior}, λ = {wildcards.lam},"
        " seed {wildcards.seed}"
    shell:
        "exec nfpi test-classifier --data {params.data:q} --output {output.metrics:q} {params.candidates:q}"
        " > {log:q} 2>&1"


rule train_classifier_on_real:
    """Train a classifier on real images, with or without standard and latent augmentations."""
    input:
        **splits("train", "validation"),
        augmented=augmented_images,
        start_from=weights_to_start_from,
        published=published_weights,
    output:
        model=f"{REAL_CLASSIFIER}/trained/model.safetensors",
        metrics=f"{REAL_CLASSIFIER}/trained/metrics.json",
        history=f"{REAL_CLASSIFIER}/trained/log.csv",
    log:
        log_of("train_classifier", REAL_CLASSIFIER),
    benchmark:
        benchmark_of("train_classifier", REAL_CLASSIFIER)
    conda:
        "../../environment.yml"
    threads: threads_of("train_classifier")
    resources:
        **resources_of("train_classifier"),
    params:
        data=subpath(input.train_images, ancestor=2),
        inputs=classifier_inputs,
        classifier=classifier_settings(to_run=True),
        compared=classifier_settings(to_run=False),
        folder=subpath(output.model, parent=True),
    message:
        "Train {wildcards.classifier} on {wildcards.dataset}: augmentation {wildcards.augmentation},"
        " {wildcards.source}, seed {wildcards.seed}"
    shell:
        "exec nfpi train-classifier --data {params.data:q} --name {wildcards.classifier} {params.inputs:q}"
        " --classifier {params.classifier:q} --seed {wildcards.seed} --output {params.folder:q} > {log:q} 2>&1"


rule test_classifier_on_real:
    """Test a classifier that learned from real images."""
    input:
        **splits("test"),
        model=f"{REAL_CLASSIFIER}/trained/model.safetensors",
        validation=f"{REAL_CLASSIFIER}/trained/metrics.json",
    output:
        metrics=f"{REAL_CLASSIFIER}/metrics.json",
    log:
        log_of("test_classifier", REAL_CLASSIFIER),
    benchmark:
        benchmark_of("test_classifier", REAL_CLASSIFIER)
    conda:
        "../../environment.yml"
    threads: threads_of("test_classifier")
    resources:
        **resources_of("test_classifier"),
    params:
        data=subpath(input.test_images, ancestor=2),
        candidate=subpath(input.model, parent=True),
        real_labels=real_labels,
    message:
        "Test {wildcards.classifier} on {wildcards.dataset}: augmentation {wildcards.augmentation},"
        " {wildcards.source}, seed {wildcards.seed}"
    shell:
        "exec nfpi test-classifier --data {params.data:q} --output {output.metrics:q} {params.real_labels:q}"
        " {params.candidate:q} > {log:q} 2>&1"
