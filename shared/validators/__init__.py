"""Validators: pure checks of texts that need no model. `schema` is JSON Schema of bounded work, `checks` all that a caller may ask for,
`questions` whether two of them say the same.
"""
