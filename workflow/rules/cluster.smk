"""Where jobs are submitted to a cluster: what each asks for stands beside what it does, in dry runs too."""

SBATCH = {
    "slurm_account": "--account={resources.slurm_account}",
    "slurm_partition": "--partition={resources.slurm_partition}",
    "constraint": "--constraint={resources.constraint}",
    "qos": "--qos={resources.qos}",
    "gres": "--gres={resources.gres}",
    "cpus_per_task": "--cpus-per-task={resources.cpus_per_task}",
    "runtime": "--time={resources.runtime}",
    "mem_mb": "--mem={resources.mem_mb}",
    "slurm_extra": "{resources.slurm_extra}",
}
"""Resources, and the options of sbatch that Snakemake's SLURM executor makes of them."""

if SETTINGS.cluster:
    silent = set() if SETTINGS.cluster.ask_memory else {"mem_mb"}
    for submitted in workflow.rules:
        if submitted.message and submitted.name not in workflow._localrules:
            options = [
                option
                for name, option in SBATCH.items()
                if name in submitted.resources and name not in silent
            ]
            submitted.message += "\n  sbatch " + " ".join(options)
elif workflow.resource_settings.nodes is not None and workflow.config_settings.configfiles:
    # Jobs go to a cluster, and a --configfile has taken the place of the profile's.
    raise WorkflowError(
        "config: a --configfile takes the place of the profile's settings: name both, as in"
        " --configfile slurm/settings.yaml mine.yaml (without a profile's: cluster: {})"
    )
