"""What the routes share: how a request is admitted, checked, answered and told of."""
