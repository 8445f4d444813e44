"""The command that checks results against their manifests."""

from __future__ import annotations

from pathlib import Path

from pydantic_settings import CliPositionalArg

from nfpi.runtime.manifests import ManifestError, find_faults, find_manifests
from nfpi.stages.base import Command


class Verify(Command):
    """Check a folder of results against its manifests.

    Prints one line per fault, and exits with 1 if there is any.
    """

    command = "verify"

    results: CliPositionalArg[Path]
    """folder of results, or a part of it"""

    def run(self) -> None:
        """Check all files listed in manifests below the folder.

        Raises:
            FileNotFoundError: the folder is missing.
            ManifestError: the folder contains no manifest, or a file is faulty; all faults are printed first.
        """
        if not self.results.is_dir():
            raise FileNotFoundError(f"{self.results}: expected a folder of results, received none")
        manifests = find_manifests(self.results)
        if not manifests:
            raise ManifestError(f"{self.results}: expected a folder of results, received one without a manifest")
        files, faults = 0, 0
        for path in manifests:
            checked, found = find_faults(path)
            files, faults = files + checked, faults + len(found)
            for fault in found:
                print(fault)
        if faults:
            raise ManifestError(f"{self.results}: expected {files} intact files, received {faults} faulty ones")
        print(f"{self.results}: {files} files of {len(manifests)} stages agree with their manifests")
