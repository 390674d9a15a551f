"""Record files of tokens and texts: OFRecord, TFRecord, what stands beside them, and what they mean."""
