"""The seventh verb, `stajax tables`: the paper's tables and figures from finished runs."""
