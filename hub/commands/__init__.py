"""The commands of `pghub`, one idea a file; hub/cli.py puts them together."""
