"""Page: the dashboard that a sink serves: what goes on in the whole cluster, live, for administrators.

looking (reads Kafka meanwhile) → present, machines (pure folds) → overview (what is shown) → routes (HTTP) → static (what browsers run)
"""
