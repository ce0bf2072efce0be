"""How fast a cluster is, measured from outside by a client that costs as little as it can."""
