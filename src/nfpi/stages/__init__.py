"""Subcommands of `nfpi`: stages, which write files of a run, and commands without declared outputs."""
