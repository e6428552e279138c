"""SOFinance: the back office of a retailer with many branches, and the books it keeps."""

__version__ = "0.1.0"
