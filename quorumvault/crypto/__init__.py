"""Values to bytes, bytes to tokens, and sealing: pure functions of a master secret. Specified in docs/token-format.md."""
