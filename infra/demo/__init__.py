"""`make demo`: from nothing to a model's answer, streamed over REST, and the same job straight onto Kafka.

stack up → POST /v1/chat/completions (stream) → one record on jobs.interactive → its record on results → what to try next
"""
