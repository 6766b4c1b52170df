"""The commands of `segmate`, one module each: `add_arguments(parser)` and `run(arguments)`.

They import what they need inside `run`, so that --help answers at once.
"""
