"""All jobs of one home and the decisions on them: what each input, outcome and timer changes. No I/O, no clock."""
