"""The name under which 0.1.0's documentation imports the zero-cost proxies; they are in ``scoring.proxies``."""

from raysearch.scoring.proxies import PROXIES, Proxy, dss, grad_norm, proxy_best, snip

__all__ = ["PROXIES", "Proxy", "dss", "grad_norm", "proxy_best", "snip"]
