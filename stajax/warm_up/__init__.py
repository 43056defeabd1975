"""The command that compiles the programs of a model before they are needed."""
