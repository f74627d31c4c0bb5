"""What supplies networks: which there are, which addresses and ports are whose, names. It knows no images."""
