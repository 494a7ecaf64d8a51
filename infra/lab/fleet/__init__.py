"""Fleet simulator: unequal nodes under real or drawn arrivals, in virtual time, with the real router and the real policies of workers.

Real     `services.router.routing` (turns, classes, choice), `shared.placement` (ledger, predictions, policies); of the worker its places,
         its inbox, its measured speeds, how it shares places among routers.
Modelled the machines (`machine`: Ollama's scheduler, with times computed by call, not by token), and a fixed time between services instead
         of Kafka. Nothing durable is looked at here: that is what the simulated cluster of the tests is for.

Three benches (`python -m infra.lab.bench NAME`): `fleet` (policies.py) plays scenarios with every policy, `fleet-live` (live.py) one in
real time over HTTP, `calibrate` compares a machine with a real one.
"""
