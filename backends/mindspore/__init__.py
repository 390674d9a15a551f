"""MindSpore: CPU, and Ascend where CANN is installed."""
