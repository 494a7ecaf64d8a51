"""The messages of tutti, one file a subject. Every value is immutable; its JSON is the record's value, nothing around it."""
