"""Names of :mod:`nfpi.results.recorded.csv_files`."""

from nfpi.results.recorded.csv_files import CsvError as CsvError
from nfpi.results.recorded.csv_files import read_column as read_column
from nfpi.results.recorded.csv_files import write_log as write_log
from nfpi.results.recorded.csv_files import write_rows as write_rows
