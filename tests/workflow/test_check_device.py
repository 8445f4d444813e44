"""The rule that checks a device runs the command with the settings of the call."""

from __future__ import annotations

import json
import subprocess
import sys

from .conftest import ROOT


def test_the_command_gets_the_settings_of_the_call(tmp_path):
    """Snakemake prints the command that it would run; its preset and settings are those that were passed."""
    arguments = ["check_device", "--dry-run", "--printshellcmds", "--directory", str(tmp_path)]
    settings = ["preset=paper", "training={batch_size: 64}", f"results={tmp_path}/results"]
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--cores", "1", *arguments]
    done = subprocess.run([*command, "--config", *settings], capture_output=True, text=True, cwd=ROOT, timeout=120)
    printed = done.stdout + done.stderr
    assert done.returncode == 0, printed
    (line,) = (line for line in printed.splitlines() if "check-device --config-file" in line)
    passed = json.loads(line[line.index("{") : line.rindex("}") + 1])
    assert passed["preset"] == "paper"
    assert int(passed["training"]["batch_size"]) == 64
    assert f"{tmp_path}/results/check-device/paper.json" in line
