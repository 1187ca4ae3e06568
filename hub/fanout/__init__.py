"""From a batch of events to the bytes in each subscriber's socket buffer. The standard library only."""
