"""How variants are measured: samples that grow until the gates are decided."""
