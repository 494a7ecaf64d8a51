"""A simulated Ollama node: its scheduler, memory, speeds, wire format and failures, without a model.

`core.SimulatedOllama` is the node itself: no HTTP, time and randomness injected, so it runs under virtual time.
`server` puts Ollama's HTTP API around it; `python -m infra.lab.simulators.ollama --help` starts one.

    parameters  what a node is: hardware, variables, models, failures, scripted answers; named profiles
    scheduler   loads, evictions, keep-alive, the queue; memory and slots are its parts
    inference   how long reading a prompt and writing a token take
    answers     the text: derived from prompt and seed, scripted, JSON by schema, tool calls
    core        one request from validation to its last chunk
    wire        field names, units and error bodies of Ollama 0.34

Simulated, so that nobody is misled: the version ends in `-simulated`, every model's details carry `"simulated": true`,
and every HTTP answer has the header `x-simulated: ollama`.

Not simulated: several GPUs, log-probabilities, images, `suffix`, `context`, `pattern` in schemas, pull and push, the `/v1` surface.
A load whose asker has gone runs to its end.
"""
