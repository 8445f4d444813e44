"""The one error of this package."""


class DataError(ValueError):
    """A data set that is missing, damaged or unexpected; its message is one line and names the place."""
