"""Write the JSON schema of config.yaml and presets, for editors."""

import json
from pathlib import Path

from nfpi.config.resolution import build_json_schema

text = json.dumps(build_json_schema(), indent=2, ensure_ascii=False) + "\n"
(Path(__file__).parents[1] / "workflow/schemas/config.schema.json").write_text(text, encoding="utf-8")
