"""Starts Snakemake by a fork of a process that has imported it, as imports take most of the time of a dry run.

A line of stdin is a call as JSON: its `arguments`, `folder`, `environment`, and the file that gets its `output`.
The answer is a line with the exit status.
"""

import json
import os
import signal
import sys

import snakemake.cli
import snakemake.storage

import nfpi.stages.commands
import nfpi.workflow  # noqa: F401

snakemake.cli.get_argument_parser()  # imports the plugins


def run(arguments: list[str], folder: str, environment: dict[str, str], output: str) -> None:
    """Run Snakemake in this process."""
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    stream = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for descriptor, target in ((os.open(os.devnull, os.O_RDONLY), 0), (stream, 1), (stream, 2)):
        os.dup2(descriptor, target)
    signal.alarm(600)
    sys.argv = ["snakemake", *arguments]
    snakemake.cli.main()


for line in iter(sys.stdin.readline, ""):
    if (child := os.fork()) == 0:
        run(**json.loads(line))
    _, status = os.waitpid(child, 0)
    print(os.waitstatus_to_exitcode(status), flush=True)
