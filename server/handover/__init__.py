"""A session that goes on on another replica: what it is made of, sealed, and where it is left."""
