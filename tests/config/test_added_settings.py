"""New settings must leave existing results up to date."""

import importlib
import json
import pkgutil
from pathlib import Path

import nfpi.config
from nfpi.config.base import Settings

RECORD = Path(__file__).with_name("always_serialized.json")


def find_always_serialized() -> dict[str, list[str]]:
    """Return, for each class of settings in nfpi.config, the fields that are serialised even if they have defaults."""
    found = {}
    for file in pkgutil.iter_modules(nfpi.config.__path__):
        module = importlib.import_module(f"{nfpi.config.__name__}.{file.name}")
        for name, kind in vars(module).items():
            if isinstance(kind, type) and issubclass(kind, Settings) and kind.__module__ == module.__name__:
                fields = sorted(field for field, info in kind.model_fields.items() if info.exclude_if is None)
                found[f"{file.name}.{name}"] = fields
    return found


def test_new_settings_leave_existing_results_up_to_date():
    """Snakemake compares serialised settings: a new field of an old class would repeat all runs."""
    known, found = json.loads(RECORD.read_text(encoding="utf-8")), find_always_serialized()
    added = {name: sorted(set(fields) - set(known[name])) for name, fields in found.items() if name in known}
    added = {name: fields for name, fields in added.items() if fields}
    assert not added, f"declare by nfpi.config.base.declare_added_setting: {added}"
    assert known == found, (
        f"new classes or fewer fields: write {RECORD} anew: python -m tests.config.test_added_settings"
    )


if __name__ == "__main__":
    RECORD.write_text(json.dumps(find_always_serialized(), indent=1, sort_keys=True) + "\n", encoding="utf-8")
