"""One pass of a subnet over cached inputs, its latency, and what zero-cost proxies say of it."""
