"""From the outbox to whoever is told: the relay, the broker, the notifier and what it sends by."""
