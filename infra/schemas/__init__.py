"""Documents derived from the contracts and the topic registry: JSON Schemas, AsyncAPI, the topic list, the README's service table."""
