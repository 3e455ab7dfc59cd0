"""The chain, one short module per stage: ingest, perceive, lift, ask, validate, train, evaluate, export."""
