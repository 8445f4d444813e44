"""Run `nfpi verify`."""

from __future__ import annotations

from nfpi.runtime.manifests import ManifestError, find_faults, find_manifests
from nfpi.stages.options import Verify


def verify(command: Verify) -> None:
    """Check all files listed in manifests below the folder.

    Raises:
        FileNotFoundError: the folder is missing.
        ManifestError: the folder contains no manifest, or a file is faulty; all faults are printed first.
    """
    if not command.results.is_dir():
        raise FileNotFoundError(f"{command.results}: expected a folder of results, received none")
    manifests = find_manifests(command.results)
    if not manifests:
        raise ManifestError(f"{command.results}: expected a folder of results, received one without a manifest")
    files, faults = 0, 0
    for path in manifests:
        checked, found = find_faults(path)
        files, faults = files + checked, faults + len(found)
        for fault in found:
            print(fault)
    if faults:
        raise ManifestError(f"{command.results}: expected {files} intact files, received {faults} faulty ones")
    print(f"{command.results}: {files} files of {len(manifests)} stages agree with their manifests")
