"""Files on disk: atomic writes, strict readers of records, and the checks that come before a long job."""
