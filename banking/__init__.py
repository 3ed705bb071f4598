"""Banking: three transaction routers share three payment channels. Read environment.py first, then baselines.py."""
