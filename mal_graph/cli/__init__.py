"""The command line; `app` has the commands, `options` makes their flags from the configuration."""
