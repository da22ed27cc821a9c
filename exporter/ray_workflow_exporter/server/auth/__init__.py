"""Who may read and who may act: TLS, basic auth, tokens, rate limits."""
