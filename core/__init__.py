"""Recipes, models, losses, data and the training loop: everything that is the same for every framework."""
