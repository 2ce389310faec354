"""Which axes may be permuted or resized together, verified by running the network."""
