"""The error that data sets raise."""


class DataError(ValueError):
    """A data set is missing, damaged or unexpected; the message is one line and names the file or folder."""
