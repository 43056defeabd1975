"""The stages of a training: their graph, what each kind of stage does, and the runner."""
