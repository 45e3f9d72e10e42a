"""The command line: one module for each command, registered in `edgead.cli.main`. No other package imports it."""
