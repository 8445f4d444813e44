"""Tables of accuracies beside the paper's numbers: as CSV, as markdown, as LaTeX."""

from nfpi.tables.frame import (
    COLUMNS,
    METRICS,
    REFERENCE_COLUMNS,
    TableError,
    accuracy_table,
    read_reference,
    read_table,
)
from nfpi.tables.markup import to_latex, to_markdown, weight_parts, write_table

__all__ = [
    "COLUMNS",
    "METRICS",
    "REFERENCE_COLUMNS",
    "TableError",
    "accuracy_table",
    "read_reference",
    "read_table",
    "to_latex",
    "to_markdown",
    "weight_parts",
    "write_table",
]
