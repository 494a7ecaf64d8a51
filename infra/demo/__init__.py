"""`make demo`: from nothing to a model's answer, streamed over REST, the same job straight onto Kafka, and a pattern drawn as it goes on.

stack up → POST /v1/chat/completions (stream) → one record on jobs.interactive → its record on results → submit --watch → what to try next
"""
