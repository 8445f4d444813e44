"""Run `nfpi schema`."""

from __future__ import annotations

import json

from nfpi.config import build_json_schema
from nfpi.runtime.files import write_atomically
from nfpi.stages.options import WriteSchema


def write_schema(stage: WriteSchema) -> None:
    """Write the schema of config.yaml and presets."""
    write_atomically(stage.get_path("schema"), json.dumps(build_json_schema(), indent=2, ensure_ascii=False) + "\n")
