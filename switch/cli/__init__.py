"""The command line: ``main`` is the program, every other module a group of commands."""
