"""Speed, size and memory of inference on a CPU, beside models of published shapes."""
