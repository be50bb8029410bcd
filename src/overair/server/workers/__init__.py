"""The loops that repeat durable steps until there is nothing left to do."""
