"""Sessions, subscriptions, retained and queued messages: what is between a publisher and its subscribers."""
