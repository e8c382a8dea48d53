"""How fast: a step against its floor, latent losses against loops over classes, the loader."""

from sparcl_lib.bench.measuring import device_facts, measure, write_tables

__all__ = ["device_facts", "measure", "write_tables"]
