"""Retail demo: five warehouses share one supplier. Read environment.py, then baselines.py, demo.py and train.py."""
