from .metrics import Metric as Metric
from .metrics import compute_metrics as compute_metrics
from .metrics import expected_calibration_error as expected_calibration_error
from .metrics import metric as metric
from .metrics import per_class_accuracy as per_class_accuracy
from .metrics import register_metric as register_metric
from .metrics import worst_class_accuracy as worst_class_accuracy
from .recorded.csv_files import CsvError as CsvError
from .recorded.csv_files import read_csv as read_csv
from .recorded.csv_files import write_csv as write_csv
from .recorded.csv_files import write_rows as write_rows
from .recorded.predictions import Predictions as Predictions
from .recorded.predictions import read_predictions as read_predictions
from .recorded.predictions import write_predictions as write_predictions
from .recorded.records import MetricsError as MetricsError
from .recorded.records import read_record as read_record
from .recorded.records import write_metrics as write_metrics
from .tables.building import accuracy_table as accuracy_table
from .tables.building import read_reference as read_reference
from .tables.building import read_table as read_table
from .tables.layout import to_latex as to_latex
from .tables.layout import to_markdown as to_markdown
from .tables.layout import write_table as write_table
from .tables.rows import TableRow as TableRow
from .tables.summaries import TableError as TableError

__all__ = [
    "CsvError",
    "Metric",
    "MetricsError",
    "Predictions",
    "TableError",
    "TableRow",
    "accuracy_table",
    "compute_metrics",
    "expected_calibration_error",
    "metric",
    "per_class_accuracy",
    "read_csv",
    "read_predictions",
    "read_record",
    "read_reference",
    "read_table",
    "register_metric",
    "to_latex",
    "to_markdown",
    "worst_class_accuracy",
    "write_csv",
    "write_metrics",
    "write_predictions",
    "write_rows",
    "write_table",
]
