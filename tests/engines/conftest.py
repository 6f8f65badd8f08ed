"""Tests with engines that `make test` does not install: `make test-vllm`, `test-deepspeed`, `test-verl`, each with its own."""
