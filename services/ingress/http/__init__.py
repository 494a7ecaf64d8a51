"""HTTP on bare ASGI, whatever the dialect: exchanges, bodies, encodings, CORS, events, the OpenAPI document."""
