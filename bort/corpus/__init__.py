"""Raw text → documents → sequences → shards → masked batches."""
