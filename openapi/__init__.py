"""The two contracts, written by hand: `jobs.yaml` (HTTP) and `jobs.asyncapi.yaml` (live events).

Holds no code; `handlers.contract.document` reads them.
"""
