"""The command line, `odv`: one module a subcommand."""
