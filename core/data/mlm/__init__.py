"""From raw text to records of masked language model examples, as Google's create_pretraining_data.py writes them."""
