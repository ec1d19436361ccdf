"""`make bench`: the server against its ceiling, its peers and itself."""
