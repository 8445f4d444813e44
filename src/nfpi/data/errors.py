"""Exception raised for faulty data sets."""


class DataError(ValueError):
    """A data set is missing, damaged or unexpected; the message is one line and names the file or folder."""
