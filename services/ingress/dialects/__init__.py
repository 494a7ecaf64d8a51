"""Dialects: foreign requests become jobs; answers, streams and errors become foreign responses. Pure; no routes."""
