"""The command line: one file per command, registered in `edgead.cli.main`; nobody imports this room."""
