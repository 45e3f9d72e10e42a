"""Files on disk: strict readers of the records that edgead writes, and the writer of JSON."""
