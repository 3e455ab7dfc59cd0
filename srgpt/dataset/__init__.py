"""Reading for training: conversations joined with their pixels, a stateless sampler, packing, collation."""
