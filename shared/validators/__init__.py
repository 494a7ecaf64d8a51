"""Validators: pure checks of a text that need no model. `schema` is JSON Schema of bounded work, `checks` all that a caller may ask for."""
