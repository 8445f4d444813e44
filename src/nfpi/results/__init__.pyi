from .collect import read_collected as read_collected
from .csv_files import read_csv as read_csv
from .csv_files import write_csv as write_csv
from .logs import CsvError as CsvError
from .logs import write_rows as write_rows
from .markup import to_latex as to_latex
from .markup import to_markdown as to_markdown
from .markup import write_table as write_table
from .measures import compute_metrics as compute_metrics
from .measures import expected_calibration_error as expected_calibration_error
from .measures import per_class_accuracy as per_class_accuracy
from .measures import worst_class_accuracy as worst_class_accuracy
from .older import find_older_results as find_older_results
from .predictions import Predictions as Predictions
from .predictions import read_predictions as read_predictions
from .predictions import write_predictions as write_predictions
from .records import MetricsError as MetricsError
from .records import config_hash as config_hash
from .records import read_record as read_record
from .records import write_metrics as write_metrics
from .registry import Metric as Metric
from .registry import metric as metric
from .registry import register_metric as register_metric
from .rows import TableRow as TableRow
from .summaries import TableError as TableError
from .tables import accuracy_table as accuracy_table
from .tables import read_reference as read_reference
from .tables import read_table as read_table

__all__ = [
    "CsvError",
    "Metric",
    "MetricsError",
    "Predictions",
    "TableError",
    "TableRow",
    "accuracy_table",
    "compute_metrics",
    "config_hash",
    "expected_calibration_error",
    "find_older_results",
    "metric",
    "per_class_accuracy",
    "read_collected",
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
