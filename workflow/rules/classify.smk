rule train_classifier:
    """Train a classifier on generated images."""
    input:
        **plan.splits("train", "validation"),
        **plan.generated_images(),
    output:
        **plan.outputs(TrainClassifier, CANDIDATE),
    log:
        jobs.log("train_classifier", CANDIDATE),
    benchmark:
        jobs.benchmark("train_classifier", CANDIDATE)
    priority: jobs.priority("train_classifier")
    conda:
        ENVIRONMENT
    threads: jobs.threads("train_classifier")
    resources:
        **jobs.resources("train_classifier"),
    params:
        data=subpath(input.train_images, ancestor=2),
        generated=subpath(input.generated_images, parent=True),
        classifier=params.classifier,
        compared=params.classifier_result_settings,
        code=params.code("classifier"),
        extensions=params.extension_options,
        folder=subpath(output.model, parent=True),
    message:
        "Train {wildcards.classifier} for {wildcards.dataset}: {wildcards.flow}, {wildcards.prior},"
        " λ = {wildcards.weight}, seed {wildcards.seed}, temperature {wildcards.temperature}"
    shell:
        "exec nfpi --log {log:q} train-classifier --data {params.data:q} --generated {params.generated:q}"
        " --name {wildcards.classifier}"
        " --classifier {params.classifier:q} --seed {wildcards.seed} {params.extensions:q}"
        " --output {params.folder:q}"


rule test_classifier:
    """Choose the temperature whose classifier is best on the validation split, and test this classifier (CNN-Acc)."""
    input:
        **plan.splits("test"),
        models=inputs.candidate_files("model"),
        candidates=inputs.candidate_files("metrics"),
        complete=inputs.candidate_files("manifest"),
    output:
        **plan.outputs(TestClassifier, GENERATED_CLASSIFIER),
    log:
        jobs.log("test_classifier", GENERATED_CLASSIFIER),
    benchmark:
        jobs.benchmark("test_classifier", GENERATED_CLASSIFIER)
    priority: jobs.priority("test_classifier")
    conda:
        ENVIRONMENT
    threads: jobs.threads("test_classifier")
    resources:
        **jobs.resources("test_classifier"),
    params:
        data=subpath(input.test_images, ancestor=2),
        run=params.run,
        candidates=inputs.candidate_folders,
        metrics=params.metric_options,
        code=params.code("classifier", "metrics"),
        extensions=params.extension_options,
        folder=subpath(output.metrics, parent=True),
    message:
        "Test the best {wildcards.classifier} for {wildcards.dataset}: {wildcards.flow}, {wildcards.prior},"
        " λ = {wildcards.weight}, seed {wildcards.seed}"
    shell:
        "exec nfpi --log {log:q} test-classifier --data {params.data:q}"
        " --identity {params.run:q} {params.metrics:q} {params.extensions:q}"
        " --output {params.folder:q} {params.candidates:q}"


rule train_classifier_on_real:
    """Train a classifier on real images, with or without standard and latent augmentations."""
    input:
        **plan.splits("train", "validation"),
        augmented=inputs.augmented_images,
        fine_tuned=inputs.weights_to_fine_tune,
        published=inputs.published_weights,
    output:
        **plan.outputs(TrainClassifier, TRAINED_CLASSIFIER),
    log:
        jobs.log("train_classifier", REAL_CLASSIFIER),
    benchmark:
        jobs.benchmark("train_classifier", REAL_CLASSIFIER)
    priority: jobs.priority("train_classifier")
    conda:
        ENVIRONMENT
    threads: jobs.threads("train_classifier")
    resources:
        **jobs.resources("train_classifier"),
    params:
        data=subpath(input.train_images, ancestor=2),
        learns_from=params.classifier_options,
        classifier=params.classifier,
        compared=params.classifier_result_settings,
        code=params.code("classifier"),
        extensions=params.extension_options,
        folder=subpath(output.model, parent=True),
    message:
        "Train {wildcards.classifier} on {wildcards.dataset}: augmentation {wildcards.augmentation},"
        " {wildcards.source}, seed {wildcards.seed}"
    shell:
        "exec nfpi --log {log:q} train-classifier --data {params.data:q} --name {wildcards.classifier}"
        " {params.learns_from:q}"
        " --classifier {params.classifier:q} --seed {wildcards.seed} {params.extensions:q}"
        " --output {params.folder:q}"


rule test_classifier_on_real:
    """Test a classifier trained on real images."""
    input:
        **plan.splits("test"),
        **plan.trained_classifier(),
    output:
        **plan.outputs(TestClassifier, REAL_CLASSIFIER),
    log:
        jobs.log("test_classifier", REAL_CLASSIFIER),
    benchmark:
        jobs.benchmark("test_classifier", REAL_CLASSIFIER)
    priority: jobs.priority("test_classifier")
    conda:
        ENVIRONMENT
    threads: jobs.threads("test_classifier")
    resources:
        **jobs.resources("test_classifier"),
    params:
        data=subpath(input.test_images, ancestor=2),
        run=params.run,
        candidate=subpath(input.model, parent=True),
        real_labels=params.real_label_options,
        metrics=params.metric_options,
        code=params.code("classifier", "metrics"),
        extensions=params.extension_options,
        folder=subpath(output.metrics, parent=True),
    message:
        "Test {wildcards.classifier} on {wildcards.dataset}: augmentation {wildcards.augmentation},"
        " {wildcards.source}, seed {wildcards.seed}"
    shell:
        "exec nfpi --log {log:q} test-classifier --data {params.data:q} --identity {params.run:q} {params.real_labels:q}"
        " {params.metrics:q} {params.extensions:q} --output {params.folder:q} {params.candidate:q}"
