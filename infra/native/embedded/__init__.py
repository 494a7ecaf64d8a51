"""The embedded model node: llama.cpp from a prebuilt wheel, with the small packaged model, behind llama.cpp's own OpenAI-compatible server.

A bare machine gets a real model's answers from pip alone. `python -m infra.native.embedded --port N` runs it in the foreground.

    template  how a base model is made to answer questions
    server    the parameters of the server and its life
    packages  where engine and model come from: this environment, or the cache

`template` and `server` import nothing but the standard library and the engine: they also run where tutti's other dependencies are absent.
"""
